"""Bring a database to the newest schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from corolla_core.protocol.errors import StoreError
from corolla_core.store.schema import HEAD

if TYPE_CHECKING:
    from alembic.config import Config

_ADVISORY_LOCK = 0x0C0_0110A


def upgrade(engine: Engine) -> None:
    """A no-op of a few milliseconds when the schema is current. Two processes may do this at once.

    Raises StoreError when the database is newer than this program.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        version = current_version(connection)
        if version == HEAD:
            return
        if version is not None and version > HEAD:
            raise StoreError(
                f"the database has schema {version}, newer than this program's {HEAD}: upgrade Corolla", reason="schema"
            )
        from alembic import command  # imported only here: a quarter of a second that a current database need not wait

        command.upgrade(alembic_config(connection), "head")


def current_version(connection: Connection) -> str | None:
    """The migration the database is at; None for a fresh one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if version is None else str(version)


def alembic_config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def migrations_folder() -> Path:
    """`migrations/`: inside the package where Corolla is installed, at the root of a source checkout."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "migrations"
