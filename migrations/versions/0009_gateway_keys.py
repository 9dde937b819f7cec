"""A gateway's API keys, and what their running requests may cost

Revision 0009.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from corolla_core.store.amount import Amount

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "gateway_keys",
        sa.Column("key_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("label", sa.String(length=80), nullable=False),
        sa.Column("hint", sa.String(length=20), nullable=False),
        sa.Column("budget", Amount(), nullable=True),
        sa.Column("daily", sa.Boolean(), nullable=False),
        sa.Column("private", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("spent", Amount(), nullable=False),
        sa.Column("spent_period", sa.BigInteger(), nullable=False),
        sa.Column("spent_ever", Amount(), nullable=False),
        sa.PrimaryKeyConstraint("key_hash", name=op.f("pk_gateway_keys")),
    )
    op.create_index(op.f("ix_gateway_keys_label"), "gateway_keys", ["label"], unique=True)
    op.create_table(
        "gateway_reservations",
        sa.Column("reservation_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("amount", Amount(), nullable=False),
        sa.Column("period", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("reservation_id", name=op.f("pk_gateway_reservations")),
    )
    op.create_index(op.f("ix_gateway_reservations_key_hash_period"), "gateway_reservations", ["key_hash", "period"])
    op.create_index(op.f("ix_gateway_reservations_owner"), "gateway_reservations", ["owner"])


def downgrade() -> None:
    op.drop_index(op.f("ix_gateway_reservations_owner"), table_name="gateway_reservations")
    op.drop_index(op.f("ix_gateway_reservations_key_hash_period"), table_name="gateway_reservations")
    op.drop_table("gateway_reservations")
    op.drop_index(op.f("ix_gateway_keys_label"), table_name="gateway_keys")
    op.drop_table("gateway_keys")
