"""Vouchers, charges, earnings, sessions, receipts, client tranches and the event index

Revision 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from corolla_core.store.amount import Amount

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "charges",
        sa.Column("tranche_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("payee", sa.String(length=42), nullable=False),
        sa.Column("charged", Amount(), nullable=False),
        sa.PrimaryKeyConstraint("tranche_id", "payee", name=op.f("pk_charges")),
    )
    op.create_table(
        "client_tranches",
        sa.Column("tranche_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("payer", sa.String(length=42), nullable=False),
        sa.Column("signer", sa.String(length=42), nullable=False),
        sa.Column("nonce", Amount(), nullable=False),
        sa.Column("leaves", sa.LargeBinary(), nullable=False),
        sa.Column("total", Amount(), nullable=False),
        sa.Column("expiry", sa.BigInteger(), nullable=False),
        sa.Column("opened_tx", sa.LargeBinary(length=32), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tranche_id", name=op.f("pk_client_tranches")),
    )
    op.create_index(op.f("ix_client_tranches_payer"), "client_tranches", ["payer"])

    op.create_table(
        "earned_hours",
        sa.Column("hour", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("earned", Amount(), nullable=False),
        sa.PrimaryKeyConstraint("hour", name=op.f("pk_earned_hours")),
    )
    op.create_table(
        "index_blocks",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("events", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", "number", name=op.f("pk_index_blocks")),
    )
    op.create_table(
        "receipts",
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("session_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("pos_start", sa.BigInteger(), nullable=False),
        sa.Column("signer", sa.String(length=42), nullable=False),
        sa.Column("t_out", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(length=65), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_receipts")),
    )
    op.create_index(op.f("ix_receipts_session_id_pos_start"), "receipts", ["session_id", "pos_start"])
    op.create_index(op.f("ix_receipts_t_out"), "receipts", ["t_out"])

    op.create_table(
        "sessions",
        sa.Column("session_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("client", sa.String(length=42), nullable=False),
        sa.Column("tranche_id", sa.LargeBinary(length=32), nullable=True),
        sa.Column("model_root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("span_start", sa.Integer(), nullable=False),
        sa.Column("span_end", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("charged", Amount(), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions_closed_at"), "sessions", ["closed_at"])

    op.create_table(
        "signed_totals",
        sa.Column("tranche_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("payee", sa.String(length=42), nullable=False),
        sa.Column("cumulative", Amount(), nullable=False),
        sa.PrimaryKeyConstraint("tranche_id", "payee", name=op.f("pk_signed_totals")),
    )
    op.create_table(
        "vouchers",
        sa.Column("tranche_id", sa.LargeBinary(length=32), nullable=False),
        sa.Column("payee", sa.String(length=42), nullable=False),
        sa.Column("cumulative", Amount(), nullable=False),
        sa.Column("receipt_head", sa.LargeBinary(length=32), nullable=False),
        sa.Column("signature", sa.LargeBinary(length=65), nullable=False),
        sa.Column("cap", Amount(), nullable=False),
        sa.Column("proof", sa.LargeBinary(), nullable=False),
        sa.Column("claimed", Amount(), nullable=False),
        sa.Column("expiry", sa.BigInteger(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tranche_id", "payee", name=op.f("pk_vouchers")),
    )


def downgrade() -> None:
    op.drop_table("vouchers")
    op.drop_table("signed_totals")
    op.drop_index(op.f("ix_sessions_closed_at"), table_name="sessions")

    op.drop_table("sessions")
    op.drop_index(op.f("ix_receipts_t_out"), table_name="receipts")
    op.drop_index(op.f("ix_receipts_session_id_pos_start"), table_name="receipts")

    op.drop_table("receipts")
    op.drop_table("index_blocks")
    op.drop_table("earned_hours")
    op.drop_index(op.f("ix_client_tranches_payer"), table_name="client_tranches")

    op.drop_table("client_tranches")
    op.drop_table("charges")
