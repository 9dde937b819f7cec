"""What nodes showed of the weights they say they hold

Revision 0007.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "possessions",
        sa.Column("salt", sa.LargeBinary(length=32), nullable=False),
        sa.Column("node", sa.String(length=42), nullable=False),
        sa.Column("span_start", sa.Integer(), nullable=False),
        sa.Column("span_end", sa.Integer(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("taken_ms", sa.BigInteger(), nullable=True),
        sa.Column("why", sa.String(length=200), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("salt", name=op.f("pk_possessions")),
    )
    op.create_index(op.f("ix_possessions_node_asked_at"), "possessions", ["node", "asked_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_possessions_node_asked_at"), table_name="possessions")

    op.drop_table("possessions")
