"""The tables. `migrations/versions` builds the same ones; a test holds the two equal."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table

from corolla_core.store.amount import Amount

#: The newest migration. A database that says it is here needs no migrating, nor Alembic imported.
HEAD = "0009"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

vouchers = Table(
    "vouchers",
    metadata,
    Column("tranche_id", LargeBinary(32), primary_key=True),
    Column("payee", String(42), primary_key=True),
    Column("cumulative", Amount, nullable=False),
    Column("receipt_head", LargeBinary(32), nullable=False),
    Column("signature", LargeBinary(65), nullable=False),
    Column("cap", Amount, nullable=False),
    Column("proof", LargeBinary, nullable=False),
    Column("claimed", Amount, nullable=False),
    Column("expiry", BigInteger, nullable=True),
    Column("received_at", BigInteger, nullable=False),
)

charges = Table(
    "charges",
    metadata,
    Column("tranche_id", LargeBinary(32), primary_key=True),
    Column("payee", String(42), primary_key=True),
    Column("charged", Amount, nullable=False),
)

earned_hours = Table(
    "earned_hours",
    metadata,
    Column("hour", BigInteger, primary_key=True, autoincrement=False),
    Column("earned", Amount, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", LargeBinary(16), primary_key=True),
    Column("client", String(42), nullable=False),
    Column("tranche_id", LargeBinary(32), nullable=True),
    Column("model_root", LargeBinary(32), nullable=False),
    Column("span_start", Integer, nullable=False),
    Column("span_end", Integer, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger, nullable=True),
    Column("tokens", BigInteger, nullable=False),
    Column("charged", Amount, nullable=False),
    Column("reason", String(200), nullable=False),
    Index(None, "closed_at"),
)

receipts = Table(
    "receipts",
    metadata,
    Column("hash", LargeBinary(32), primary_key=True),
    Column("session_id", LargeBinary(16), nullable=False),
    Column("pos_start", BigInteger, nullable=False),
    Column("signer", String(42), nullable=False),
    Column("t_out", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary(65), nullable=False),
    Index(None, "session_id", "pos_start"),
    Index(None, "t_out"),
)

nonces = Table(
    "nonces",
    metadata,
    Column("nonce", LargeBinary(32), primary_key=True),
    Column("session_id", LargeBinary(16), nullable=False),
    Column("client", String(42), nullable=False),
    Column("accepted_at", BigInteger, nullable=False),
    Index(None, "accepted_at"),
)

kept_rows = Table(
    "kept_rows",
    metadata,
    Column("receipt_hash", LargeBinary(32), primary_key=True),
    Column("segment", BigInteger, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Index(None, "segment", "start"),
)

client_tranches = Table(
    "client_tranches",
    metadata,
    Column("tranche_id", LargeBinary(32), primary_key=True),
    Column("payer", String(42), nullable=False),
    Column("signer", String(42), nullable=False),
    Column("nonce", Amount, nullable=False),
    Column("leaves", LargeBinary, nullable=False),
    Column("total", Amount, nullable=False),
    Column("expiry", BigInteger, nullable=False),
    Column("opened_tx", LargeBinary(32), nullable=True),
    Column("closed_at", BigInteger, nullable=True),
    Index(None, "payer"),
)

signed_totals = Table(
    "signed_totals",
    metadata,
    Column("tranche_id", LargeBinary(32), primary_key=True),
    Column("payee", String(42), primary_key=True),
    Column("cumulative", Amount, nullable=False),
)

index_blocks = Table(
    "index_blocks",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
    Column("events", LargeBinary, nullable=False),
)

ballots = Table(
    "ballots",
    metadata,
    Column("dispute", BigInteger, primary_key=True, autoincrement=False),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("vote", Integer, nullable=False),
    Column("salt", LargeBinary(32), nullable=False),
)

audits = Table(
    "audits",
    metadata,
    Column("evidence", LargeBinary(32), primary_key=True),
    Column("node", String(42), nullable=False),
    Column("session_id", LargeBinary(16), nullable=False),
    Column("head", LargeBinary(32), nullable=False),
    Column("span_start", Integer, nullable=False),
    Column("span_end", Integer, nullable=False),
    Column("input_digest", LargeBinary(32), nullable=False),
    Column("beacon", LargeBinary(32), nullable=False),
    Column("calibration", LargeBinary(32), nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("finding", LargeBinary, nullable=False),
    Column("audited_at", BigInteger, nullable=False),
    Index(None, "node", "audited_at"),
)

challenges = Table(
    "challenges",
    metadata,
    Column("challenge_id", LargeBinary(32), primary_key=True),
    Column("node", String(42), nullable=False),
    Column("session_id", LargeBinary(16), nullable=False),
    Column("state", String(10), nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Index(None, "node", "session_id"),
)

score_sheets = Table(
    "score_sheets",
    metadata,
    Column("oracle", String(42), primary_key=True),
    Column("validator", String(42), primary_key=True),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("scores", LargeBinary, nullable=False),
    Column("salt", LargeBinary(32), nullable=False),
)

redemptions = Table(
    "redemptions",
    metadata,
    Column("tranche_id", LargeBinary(32), primary_key=True),
    Column("payee", String(42), primary_key=True),
    Column("cumulative", Amount, primary_key=True),
    Column("receipt_head", LargeBinary(32), nullable=False),
    Column("amount", Amount, nullable=False),
    Column("burned", Amount, nullable=False),
    Column("block", BigInteger, nullable=False),
    Index(None, "receipt_head"),
    Index(None, "block"),
)

possessions = Table(
    "possessions",
    metadata,
    Column("salt", LargeBinary(32), primary_key=True),
    Column("node", String(42), nullable=False),
    Column("span_start", Integer, nullable=False),
    Column("span_end", Integer, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("missing", Integer, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("taken_ms", BigInteger, nullable=True),
    Column("why", String(200), nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Index(None, "node", "asked_at"),
)

probe_accounts = Table(
    "probe_accounts",
    metadata,
    Column("account", String(42), primary_key=True),
    Column("deposit", Amount, nullable=False),
    Column("funded_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False),
    Index(None, "funded_at"),
)

probe_sessions = Table(
    "probe_sessions",
    metadata,
    Column("session_id", LargeBinary(16), primary_key=True),
    Column("account", String(42), nullable=False),
    Column("noted_at", BigInteger, nullable=False),
    Column("judged_at", BigInteger, nullable=True),
    Index(None, "account"),
)

gateway_keys = Table(
    "gateway_keys",
    metadata,
    Column("key_hash", LargeBinary(32), primary_key=True),
    Column("label", String(80), nullable=False),
    Column("hint", String(20), nullable=False),
    Column("budget", Amount, nullable=True),
    Column("daily", Boolean, nullable=False),
    Column("private", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=True),
    Column("revoked_at", BigInteger, nullable=True),
    Column("spent", Amount, nullable=False),
    Column("spent_period", BigInteger, nullable=False),
    Column("spent_ever", Amount, nullable=False),
    Index(None, "label", unique=True),
)

gateway_reservations = Table(
    "gateway_reservations",
    metadata,
    Column("reservation_id", LargeBinary(16), primary_key=True),
    Column("key_hash", LargeBinary(32), nullable=False),
    Column("amount", Amount, nullable=False),
    Column("period", BigInteger, nullable=False),
    Column("owner", LargeBinary(32), nullable=False),
    Index(None, "key_hash", "period"),
    Index(None, "owner"),
)
