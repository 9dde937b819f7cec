"""The accounts a validator probes with, and the sessions that were its own

Revision 0008.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from corolla_core.store.amount import Amount

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "probe_accounts",
        sa.Column("account", sa.String(length=42), nullable=False),
        sa.Column("deposit", Amount(), nullable=False),
        sa.Column("funded_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_probe_accounts")),
    )
    op.create_index(op.f("ix_probe_accounts_funded_at"), "probe_accounts", ["funded_at"])

    op.create_table(
        "probe_sessions",
        sa.Column("session_id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("account", sa.String(length=42), nullable=False),
        sa.Column("noted_at", sa.BigInteger(), nullable=False),
        sa.Column("judged_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_probe_sessions")),
    )
    op.create_index(op.f("ix_probe_sessions_account"), "probe_sessions", ["account"])


def downgrade() -> None:
    op.drop_index(op.f("ix_probe_sessions_account"), table_name="probe_sessions")

    op.drop_table("probe_sessions")
    op.drop_index(op.f("ix_probe_accounts_funded_at"), table_name="probe_accounts")

    op.drop_table("probe_accounts")
