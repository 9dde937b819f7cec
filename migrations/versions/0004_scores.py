"""What a validator commits to as its scores of nodes, and what nodes were paid

Revision 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from corolla_core.store.amount import Amount

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "redemptions",
        sa.Column("tranche_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("payee", sa.String(length=42), nullable=False),
        sa.Column("cumulative", Amount(), nullable=False),
        sa.Column("receipt_head", sa.LargeBinary(length=32), nullable=False),
        sa.Column("amount", Amount(), nullable=False),
        sa.Column("burned", Amount(), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tranche_id", "payee", "cumulative", name=op.f("pk_redemptions")),
    )
    op.create_index(op.f("ix_redemptions_block"), "redemptions", ["block"])
    op.create_index(op.f("ix_redemptions_receipt_head"), "redemptions", ["receipt_head"])

    op.create_table(
        "score_sheets",
        sa.Column("oracle", sa.String(length=42), nullable=False),
        sa.Column("validator", sa.String(length=42), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("scores", sa.LargeBinary(), nullable=False),
        sa.Column("salt", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("oracle", "validator", "epoch", name=op.f("pk_score_sheets")),
    )


def downgrade() -> None:
    op.drop_table("score_sheets")
    op.drop_index(op.f("ix_redemptions_receipt_head"), table_name="redemptions")
    op.drop_index(op.f("ix_redemptions_block"), table_name="redemptions")

    op.drop_table("redemptions")
