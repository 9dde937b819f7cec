"""Alembic's entry point. The application hands over its own connection; the command line gives a URL.

`alembic -x url=sqlite:///node.db upgrade head` (from the repository root, with alembic.ini).
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from corolla_core.store.schema import metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    url = context.get_x_argument(as_dictionary=True).get("url")
    if not url:
        raise SystemExit("say which database: alembic -x url=sqlite:///path.db …")
    with create_engine(url).begin() as own:
        run(own)
