"""What a validator's audits found, and how it votes as a juror

Revision 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audits",
        sa.Column("evidence", sa.LargeBinary(length=32), nullable=False),
        sa.Column("node", sa.String(length=42), nullable=False),
        sa.Column("session_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("head", sa.LargeBinary(length=32), nullable=False),
        sa.Column("span_start", sa.Integer(), nullable=False),
        sa.Column("span_end", sa.Integer(), nullable=False),
        sa.Column("input_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("beacon", sa.LargeBinary(length=32), nullable=False),
        sa.Column("calibration", sa.LargeBinary(length=32), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("finding", sa.LargeBinary(), nullable=False),
        sa.Column("audited_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("evidence", name=op.f("pk_audits")),
    )
    op.create_index(op.f("ix_audits_node_audited_at"), "audits", ["node", "audited_at"])

    op.create_table(
        "ballots",
        sa.Column("dispute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("round", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("vote", sa.Integer(), nullable=False),
        sa.Column("salt", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("dispute", "round", name=op.f("pk_ballots")),
    )


def downgrade() -> None:
    op.drop_table("ballots")
    op.drop_index(op.f("ix_audits_node_audited_at"), table_name="audits")

    op.drop_table("audits")
