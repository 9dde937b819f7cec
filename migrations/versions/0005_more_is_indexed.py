"""Indexes begin again: they follow more contracts than before

What an index read until now is the logs of the contracts it followed then. It cannot tell that others are missing, so
it reads the chain once more, from its start.

Revision 0005.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM index_blocks")


def downgrade() -> None:
    op.execute("DELETE FROM index_blocks")
