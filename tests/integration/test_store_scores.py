"""A validator's sealed scores and the redemptions it has seen, on SQLite and on a real PostgreSQL alike."""

from __future__ import annotations

from alembic import command
from books import PAYEE, PAYER, receipt, session_id, tranche
from databases import database, postgres_server, store
from sqlalchemy import select

from corolla_core.protocol.ids import Address, Hash32, address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import MAX_UINT128, Nectar
from corolla_core.store.fee_store import FeeStore, RedemptionRecord, SessionFees
from corolla_core.store.migrate import alembic_config
from corolla_core.store.receipts import ReceiptLog
from corolla_core.store.schema import index_blocks
from corolla_core.store.score_store import ScoreStore, SealedScores
from corolla_core.store.store import Store

__all__ = ["database", "postgres_server", "store"]

ORACLE, ME = address(b"\x0a" * 20), address(b"\x0b" * 20)


def redeemed(cumulative: int, head: Hash32, *, payee: Address = PAYEE.address, block: int = 5) -> RedemptionRecord:
    return RedemptionRecord(tranche(1), payee, cumulative, head, Nectar(100), Nectar(1), block)


def kept(store: Store, session: int, *, signer: Signer = PAYEE) -> Hash32:
    """A receipt in the books; its hash."""
    signed = receipt(session=session, signer=signer)
    ReceiptLog(store).record_receipt(signed)
    return signed.receipt.hash()


def test_the_first_scores_sealed_for_an_epoch_stay(store: Store) -> None:
    books = ScoreStore(store, oracle=ORACLE, validator=ME)
    first = SealedScores((ME,), (5,), Hash32(b"\x01" * 32))
    second = SealedScores((ORACLE, ME), (6, 65_535), Hash32(b"\x02" * 32))
    assert books.seal(1, first) == first
    assert books.seal(1, second) == first
    assert books.seal(3, second) == second
    assert books.sealed(3) == second
    assert books.sealed(2) is None
    assert books.newest_sealed(before=3) == (1, first)
    assert books.newest_sealed(before=4) == (3, second)
    assert books.newest_sealed(before=1) is None


def test_scores_of_another_account_or_oracle_are_not_ours(store: Store) -> None:
    ScoreStore(store, oracle=ORACLE, validator=ME).seal(1, SealedScores((ME,), (5,), Hash32(b"\x01" * 32)))
    assert ScoreStore(store, oracle=ORACLE, validator=ORACLE).sealed(1) is None
    assert ScoreStore(store, oracle=ME, validator=ME).newest_sealed(before=9) is None


def test_redemptions_count_for_the_session_whose_receipt_they_name_and_once(store: Store) -> None:
    books = FeeStore(store)
    one, two = kept(store, 1), kept(store, 2)
    assert (books.newest_redemption(), books.session_fees()) == (None, {})
    books.record_redemptions([redeemed(100, one), redeemed(200, one, block=6), redeemed(300, two, block=9)])
    books.record_redemptions([redeemed(300, two, block=9), redeemed(400, Hash32(b"\x07" * 32), block=7)])
    assert books.newest_redemption() == 9
    assert books.session_fees() == {
        (PAYEE.address, session_id(1)): SessionFees(Nectar(200), Nectar(2)),
        (PAYEE.address, session_id(2)): SessionFees(Nectar(100), Nectar(1)),
    }


def test_naming_a_receipt_that_another_node_signed_brings_nothing(store: Store) -> None:
    books = FeeStore(store)
    books.record_redemptions([redeemed(100, kept(store, 1, signer=PAYER))])
    assert books.session_fees() == {}


def test_an_index_from_before_more_was_indexed_begins_again(store: Store) -> None:
    with store.engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0004")
        connection.execute(index_blocks.insert().values(name="old", number=7, hash=bytes(32), events=b"\x90"))
        command.upgrade(alembic_config(connection), "head")
        assert connection.execute(select(index_blocks)).all() == []


def test_the_largest_amounts_are_kept_exactly(store: Store) -> None:
    books = FeeStore(store)
    most = Nectar(MAX_UINT128)
    books.record_redemptions([RedemptionRecord(tranche(1), PAYEE.address, most, kept(store, 1), most, most, 2**62)])
    assert books.session_fees() == {(PAYEE.address, session_id(1)): SessionFees(most, most)}
