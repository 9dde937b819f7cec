"""Which rows a validator demanded on chain, and what became of it

Revision 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "challenges",
        sa.Column("challenge_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("node", sa.String(length=42), nullable=False),
        sa.Column("session_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("challenge_id", name=op.f("pk_challenges")),
    )
    op.create_index(op.f("ix_challenges_node_session_id"), "challenges", ["node", "session_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_challenges_node_session_id"), table_name="challenges")

    op.drop_table("challenges")
