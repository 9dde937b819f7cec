"""A validator demands withheld rows on chain once they were paid for, and finishes what it began, restarts or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from books import NOW, PAYEE, session_id
from books import receipt as made

from corolla_core.chain.faults import (
    MAX_CHAIN,
    ChallengeState,
    FaultParameters,
    Opening,
    Punishment,
    Side,
    challenge_id,
)
from corolla_core.chain.mined import Mined
from corolla_core.protocol.errors import ChainUnreachable, TransactionReverted
from corolla_core.protocol.ids import ZERO_ADDRESS, ZERO_HASH, Address, Hash32, TrancheId, address
from corolla_core.protocol.receipt import Receipt, SignedReceipt
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime
from corolla_core.store.challenges import ChallengeBook, ChallengeRecord, Demanded
from corolla_core.store.store import Store
from corolla_validator.challenger import AGAIN_SECONDS, FORGIVEN_SECONDS, SENT_SECONDS, Challenger

pytestmark = pytest.mark.anyio
ME, OTHER = address("0x" + "a1" * 20), address("0x" + "b2" * 20)
NODE = PAYEE.address
TRANCHE = TrancheId(b"t" * 32)
NOBODYS = Opening(
    ZERO_ADDRESS,
    UnixTime(0),
    ChallengeState.NONE,
    ZERO_ADDRESS,
    UnixTime(0),
    session_id(0),
    0,
    ZERO_HASH,
    0,
    0,
    Nectar(0),
    TRANCHE,
)
MINED = Mined(ZERO_HASH, 1, ZERO_HASH, 1, 0, None, ())  # type: ignore[arg-type]


def chain_of(count: int, *, session: int = 1, t_out: int = NOW * 1000) -> tuple[SignedReceipt, ...]:
    """Receipts of one session, four positions each, the first of them the oldest."""
    found: list[SignedReceipt] = []
    for number in range(count):
        one = made(session=session, start=4 * number, count=4, t_out=t_out).receipt
        before = found[-1].receipt.hash() if found else ZERO_HASH
        found.append(replace(one, prev_receipt_hash=before).sign(PAYEE))
    return tuple(found)


class FakeContracts:
    """`heads`: what the node redeemed with; `refusal`: what the next challenge fails with."""

    me = ME

    def __init__(self) -> None:
        self.time = NOW
        self.heads: list[Hash32] = []
        self.openings: dict[Hash32, Opening] = {}
        self.made: list[tuple[SignedReceipt, int, Side, list[Receipt]]] = []
        self.refusal: Exception | None = None
        self.ended: list[Hash32] = []
        self.asked = 0

    async def now(self) -> UnixTime:
        return UnixTime(self.time)

    async def parameters(self) -> FaultParameters:
        return FaultParameters(opening_age=3600, response_time=30)

    async def redeemed(self, node: Address, receipts: Sequence[Hash32]) -> tuple[TrancheId, Hash32] | None:
        assert node == NODE
        self.asked += 1
        return next(((TRANCHE, head) for head in self.heads if head in receipts), None)

    async def challenge_opening(
        self, receipt: SignedReceipt, position: int, side: Side, *, tranche: TrancheId, later: Sequence[Receipt]
    ) -> Hash32:
        if self.refusal is not None:
            raise self.refusal
        head = receipt.receipt
        assert tranche == TRANCHE
        assert len(later) <= MAX_CHAIN
        expected = self.heads[0]
        for each in later:
            assert each.hash() == expected
            expected = each.prev_receipt_hash
        assert head.hash() == expected, "the receipts must lead from the head to the challenged one"
        assert head.pos_start <= position < head.pos_start + head.n_pos
        self.made.append((receipt, position, side, list(later)))
        challenge = challenge_id(head.hash(), position, side)
        self.openings[challenge] = replace(
            NOBODYS, challenger=ME, deadline=UnixTime(self.time + 30), state=ChallengeState.OPEN, node=NODE
        )
        return challenge

    async def expire_opening(self, challenge: Hash32) -> Punishment | None:
        opening = self.openings[challenge]
        if opening.state is not ChallengeState.OPEN or self.time <= opening.deadline:
            raise TransactionReverted("no", reason="DeadlineNotPassed")
        self.ended.append(challenge)
        self.openings[challenge] = replace(opening, state=ChallengeState.EXPIRED)
        return Punishment(
            MINED, NODE, ME, Nectar(5 * ONE_NECTAR), Nectar(ONE_NECTAR), Nectar(0), UnixTime(self.time + 300)
        )

    async def opening(self, challenge: Hash32) -> Opening:
        return self.openings.get(challenge, NOBODYS)

    def becomes(self, state: ChallengeState) -> None:
        """The one challenge there is comes into this state, by somebody else's doing."""
        ((challenge, opening),) = self.openings.items()
        self.openings[challenge] = replace(opening, state=state)
        if state is ChallengeState.NONE:
            self.openings[challenge] = NOBODYS


class World:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.book = ChallengeBook(store)
        self.contracts = FakeContracts()
        self.events: list[dict[str, object]] = []
        self.challenger = self.restart()

    def restart(self, seed: int = 0) -> Challenger:
        self.challenger = Challenger(
            self.contracts,
            self.store,
            clock=lambda: float(self.contracts.time),
            rng=Random(seed),
            tell=self.events.append,
        )
        return self.challenger

    async def pass_time(self, seconds: float) -> bool:
        self.contracts.time = UnixTime(self.contracts.time + int(seconds))
        return await self.challenger.round()

    def states(self) -> list[Demanded]:
        return [record.state for record in self.book.of_node(NODE)]

    def told(self) -> list[object]:
        return [event["event"] for event in self.events]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with Store.open(tmp_path / "books.db") as store:
        yield World(store)


async def test_a_node_that_stays_silent_is_punished_after_its_deadline(world: World) -> None:
    chain = chain_of(5)
    world.contracts.heads = [chain[3].receipt.hash()]
    world.challenger.demand(chain)
    assert await world.challenger.round()
    assert world.told() == ["challenged"]
    assert await world.pass_time(30)
    assert world.contracts.ended == []
    await world.pass_time(1)
    assert world.told() == ["challenged", "punished"]
    assert (world.events[-1]["taken"], world.events[-1]["reward"], world.states()) == ("5", "1", [Demanded.PUNISHED])
    assert not await world.pass_time(AGAIN_SECONDS)
    assert len(world.contracts.made) == 1


@pytest.mark.parametrize("seed", range(20))
async def test_any_paid_row_of_either_side_may_be_asked_for_and_no_other(world: World, seed: int) -> None:
    chain = chain_of(6)
    world.contracts.heads = [chain[4].receipt.hash()]
    world.restart(seed).demand(chain)
    await world.challenger.round()
    ((signed, _position, _side, later),) = world.contracts.made
    assert signed in chain[:5]
    assert [each.hash() for each in later] == [one.receipt.hash() for one in chain[chain.index(signed) + 1 : 5]][::-1]


async def test_receipts_too_far_behind_the_head_are_not_asked_for(world: World) -> None:
    chain = chain_of(MAX_CHAIN + 40)
    world.contracts.heads = [chain[-1].receipt.hash()]
    for seed in range(8):
        world.contracts.openings.clear()
        for record in world.book.of_node(NODE):
            world.book.forget(record.challenge)
        world.restart(seed).demand(chain)
        await world.challenger.round()
    assert len(world.contracts.made) == 8


async def test_a_session_is_challenged_once_the_node_has_redeemed_and_only_once(world: World) -> None:
    chain = chain_of(3)
    world.challenger.demand(chain)
    assert not await world.challenger.round()
    await world.pass_time(1)
    assert world.contracts.asked == 1
    await world.pass_time(AGAIN_SECONDS)
    assert (world.contracts.asked, world.contracts.made) == (2, [])
    world.contracts.heads = [chain[2].receipt.hash()]
    await world.pass_time(AGAIN_SECONDS)
    assert len(world.contracts.made) == 1
    world.restart().demand(chain)  # drawn and refused again
    await world.pass_time(AGAIN_SECONDS)
    assert len(world.contracts.made) == 1


async def test_what_is_never_redeemed_is_given_up_when_it_is_too_old_to_challenge(world: World) -> None:
    world.challenger.demand(chain_of(3))
    await world.pass_time(3601)
    asked = world.contracts.asked
    await world.pass_time(AGAIN_SECONDS)
    assert world.contracts.asked == asked


async def test_a_row_opened_at_last_is_remembered_and_the_node_left_alone_for_a_day(world: World) -> None:
    first, second = chain_of(3), chain_of(3, session=2)
    world.contracts.heads = [first[2].receipt.hash()]
    world.challenger.demand(first)
    await world.challenger.round()
    world.contracts.becomes(ChallengeState.ANSWERED)
    await world.pass_time(1)
    assert (world.told(), world.states()) == (["challenged", "opened"], [Demanded.OPENED])
    world.contracts.heads = [second[2].receipt.hash()]
    world.restart().demand(second)
    await world.pass_time(AGAIN_SECONDS)
    assert len(world.contracts.made) == 1  # it would only earn another bond
    third = chain_of(3, session=3, t_out=(NOW + FORGIVEN_SECONDS) * 1000)
    world.contracts.heads = [third[2].receipt.hash()]
    world.challenger.demand(third)
    await world.pass_time(FORGIVEN_SECONDS)
    assert len(world.contracts.made) == 2


async def test_a_restart_finishes_what_is_open(world: World) -> None:
    chain = chain_of(3)
    world.contracts.heads = [chain[2].receipt.hash()]
    world.challenger.demand(chain)
    await world.challenger.round()
    world.restart()
    await world.pass_time(31)
    assert world.told() == ["challenged", "punished"]


async def test_a_challenge_whose_sending_was_cut_off_is_followed_or_made_again(world: World) -> None:
    chain = chain_of(3)
    world.contracts.heads = [chain[2].receipt.hash()]
    world.challenger.demand(chain)
    world.contracts.refusal = ChainUnreachable("no answer")
    with pytest.raises(ChainUnreachable):
        await world.challenger.round()
    assert world.states() == [Demanded.SENT]
    await world.pass_time(AGAIN_SECONDS)  # it may still be mined: no second one yet
    world.contracts.refusal = None
    await world.pass_time(AGAIN_SECONDS)
    assert world.contracts.made == []
    await world.pass_time(SENT_SECONDS)
    assert world.states() == []
    await world.pass_time(AGAIN_SECONDS)
    assert world.states() == [Demanded.OPEN]


async def test_a_refused_challenge_is_tried_again_with_another_row(world: World) -> None:
    chain = chain_of(3)
    world.contracts.heads = [chain[2].receipt.hash()]
    world.challenger.demand(chain)
    world.contracts.refusal = TransactionReverted("no", reason="ChallengeExists")
    assert not await world.challenger.round()
    assert world.states() == []
    world.contracts.refusal = None
    await world.pass_time(AGAIN_SECONDS)
    assert world.states() == [Demanded.OPEN]


async def test_a_row_that_another_challenger_asked_for_is_theirs(world: World) -> None:
    chain = chain_of(1)
    challenge = challenge_id(chain[0].receipt.hash(), 0, Side.INPUT)
    world.book.record(ChallengeRecord(challenge, NODE, session_id(1), Demanded.SENT, UnixTime(NOW)))
    world.contracts.openings[challenge] = replace(NOBODYS, challenger=OTHER, state=ChallengeState.OPEN)
    await world.challenger.round()
    assert (world.states(), world.told()) == ([], [])


@pytest.mark.parametrize(
    ("state", "end"), [(ChallengeState.EXPIRED, Demanded.PUNISHED), (ChallengeState.NONE, Demanded.LAPSED)]
)
async def test_a_challenge_that_somebody_else_ended_is_over(world: World, state: ChallengeState, end: Demanded) -> None:
    chain = chain_of(3)
    world.contracts.heads = [chain[2].receipt.hash()]
    world.challenger.demand(chain)
    await world.challenger.round()
    world.contracts.becomes(state)
    await world.pass_time(40)
    assert (world.states(), world.contracts.ended) == ([end], [])
