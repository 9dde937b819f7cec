"""Nonces that sessions were opened with, and where the rows under receipts lie

Revision 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kept_rows",
        sa.Column("receipt_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("segment", sa.BigInteger(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("receipt_hash", name=op.f("pk_kept_rows")),
    )
    op.create_index(op.f("ix_kept_rows_segment_start"), "kept_rows", ["segment", "start"])

    op.create_table(
        "nonces",
        sa.Column("nonce", sa.LargeBinary(length=32), nullable=False),
        sa.Column("session_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("client", sa.String(length=42), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_nonces")),
    )
    op.create_index(op.f("ix_nonces_accepted_at"), "nonces", ["accepted_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_nonces_accepted_at"), table_name="nonces")

    op.drop_table("nonces")
    op.drop_index(op.f("ix_kept_rows_segment_start"), table_name="kept_rows")

    op.drop_table("kept_rows")
