"""A node before the jury, through the bindings, on the real contracts on Ganache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from ganache import Ganache

from corolla_core.chain.deploy import Terms, deploy_all
from corolla_core.chain.disputes import Accusation, Disputes, Outcome, Phase, Vote, new_salt
from corolla_core.chain.network import Network
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import ConfigError, InvalidInput, TransactionReverted
from corolla_core.protocol.ids import ZERO_ADDRESS, ZERO_HASH, Address, Hash32, ModelRoot, SessionId
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, WireDtype
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import ONE_NECTAR, Nectar

pytestmark = pytest.mark.anyio

# Periods that a slow test machine does not outrun; the chain's clock is moved on by hand.
TERMS = Terms(unbonding_delay=20_000, audit_window=100, juror_unbonding=20_000, dispute_period=1_000)
STAKE = Nectar(200 * ONE_NECTAR)
JUROR_STAKE = Nectar(100 * ONE_NECTAR)
EVIDENCE = Hash32(b"\x05" * 32)


@pytest.fixture(scope="module")
def network(ganache: Ganache) -> Network:
    return asyncio.run(deploy_all(ganache.url, ganache.accounts[0], terms=TERMS, name="test"))


class Court:
    """A staked node, its owner, a challenger and three jurors, before the jury."""

    def __init__(self, chain: Chain, ganache: Ganache) -> None:
        self.chain, self.ganache = chain, ganache
        self.node, self.owner, self.challenger, *jurors = ganache.accounts[1:7]
        self.jurors = {juror.address: juror for juror in jurors}
        self.reader = Disputes(chain)

    def by(self, signer: Signer) -> Disputes:
        return Disputes(self.chain, TransactionSender(self.chain, signer))

    async def set_up(self) -> None:
        mint = Token(self.chain, TransactionSender(self.chain, self.ganache.accounts[0]))
        for signer in (self.node, self.owner, self.challenger, *self.jurors.values()):
            await mint.mint(signer.address, Nectar(1_000 * ONE_NECTAR))
        await Registry(self.chain, TransactionSender(self.chain, self.node)).register(
            b"peer", self.owner.address, STAKE
        )
        for juror in self.jurors.values():
            await (await self.by(juror).pool()).join(juror.address, JUROR_STAKE)

    def receipt(self, number: int) -> SignedReceipt:
        return Receipt(
            chain_id=self.chain.chain_id,
            epoch=0,
            model_root=ModelRoot(b"m" * 32),
            span=Span(0, 2),
            weight_root=Hash32(b"w" * 32),
            numeric_class=NumericClass.FP32,
            session_id=SessionId(b"s" * 16),
            client_nonce=b"n" * 32,
            pos_start=number,
            n_pos=1,
            wire=WireDtype.FLOAT32,
            batch=1,
            order_root=ZERO_HASH,
            in_root=ZERO_HASH,
            out_root=ZERO_HASH,
            upstream_receipt_hash=ZERO_HASH,
            prev_receipt_hash=ZERO_HASH,
            t_in=1,
            t_out=2,
        ).sign(self.node)

    async def jury_votes(self, dispute: int, vote: Vote) -> dict[Address, int]:
        """The jury of the current round is drawn and votes, all the same."""
        self.ganache.mine(1)
        jury = await self.reader_draws(dispute)
        salts = {juror: new_salt() for juror in jury}
        for juror in jury:
            await self.by(self.jurors[juror]).commit(dispute, vote, salts[juror])
        await self.past("commit_until", dispute)
        assert await self.reader.phase(dispute) is Phase.REVEALING
        for juror in jury:
            await self.by(self.jurors[juror]).reveal(dispute, vote, salts[juror])
        await self.past("reveal_until", dispute)
        return jury

    async def reader_draws(self, dispute: int) -> dict[Address, int]:
        drawn = await self.by(self.ganache.accounts[0]).draw(dispute)  # anyone may
        assert drawn is not None
        return drawn

    async def past(self, deadline: str, dispute: int, *, extra: int = 0) -> None:
        current = await self.reader.round(dispute, (await self.reader.dispute(dispute)).round)
        self.ganache.advance(getattr(current, deadline) + extra + 1 - await self.chain.now())


@pytest.fixture(scope="module")
def ready(ganache: Ganache, network: Network) -> str:
    async def prepare() -> None:
        async with await Chain.connect(network) as chain:
            await Court(chain, ganache).set_up()

    asyncio.run(prepare())
    return ganache.snapshot()


@pytest.fixture
async def court(network: Network, ganache: Ganache, ready: str) -> AsyncIterator[Court]:
    async with await Chain.connect(network) as chain:
        yield Court(chain, ganache)


async def test_three_jurors_convict_a_node_and_its_stake_is_slashed(court: Court) -> None:
    challenger = court.by(court.challenger)
    before = (await Registry(court.chain).node(court.node.address)).stake
    bond = await challenger.bond()
    signed = court.receipt(1)
    dispute = await challenger.accuse(Accusation(signed, EVIDENCE, "https://evidence.example"))
    assert await court.reader.dispute_over(court.node.address, signed.receipt.hash()) == dispute
    jury = await court.jury_votes(dispute, Vote.FAULTY)
    assert sum(jury.values()) == 5
    assert await court.reader.verdict(dispute, 0) is Outcome.FAULTY
    await court.by(court.owner).appeal(dispute)
    assert sum((await court.jury_votes(dispute, Vote.FAULTY)).values()) == 11
    parameters = await court.reader.parameters()
    await court.past("reveal_until", dispute, extra=parameters.appeal_period)
    assert await challenger.conclude(dispute) is Outcome.FAULTY
    found = await court.reader.dispute(dispute)
    assert (found.outcome, found.round, found.evidence_hash) == (Outcome.FAULTY, 1, EVIDENCE)
    record = await Registry(court.chain).node(court.node.address)
    assert record.stake == before // 2
    assert not record.active
    appeal_bond = (await court.reader.round(dispute, 1)).bond
    assert await challenger.withdraw() == bond + before // 2 * 3 // 10 + appeal_bond // 2
    await challenger.settle(dispute, list(court.jurors))
    seats = dict.fromkeys(court.jurors, 0)
    for juror, signer in court.jurors.items():
        for round_ in (0, 1):
            ballot = await court.reader.ballot(dispute, round_, signer.address)
            assert ballot.settled == (ballot.seats > 0)
            seats[juror] += ballot.seats
        assert await court.reader.credit(signer.address) == seats[juror] * found.seat_reward
        pool = await court.by(signer).pool()
        assert (await pool.juror(signer.address)).locked == 0
    assert sum(seats.values()) == 16


async def test_three_jurors_acquit_a_node_and_the_accuser_loses_its_bond(court: Court) -> None:
    challenger = court.by(court.challenger)
    before = (await Registry(court.chain).node(court.node.address)).stake
    owed = await court.reader.credit(court.owner.address)
    bond = await challenger.bond()
    signed = court.receipt(2)
    dispute = await challenger.accuse(Accusation(signed, EVIDENCE))
    await court.jury_votes(dispute, Vote.CORRECT)
    parameters = await court.reader.parameters()
    await court.past("reveal_until", dispute, extra=parameters.appeal_period)
    assert await court.by(court.owner).conclude(dispute) is Outcome.CORRECT
    assert (await Registry(court.chain).node(court.node.address)).stake == before
    assert await court.reader.credit(court.owner.address) - owed == bond // 2
    assert await court.reader.credit(court.challenger.address) == 0
    with pytest.raises(TransactionReverted, match="AlreadyAccused"):
        await challenger.accuse(Accusation(signed, EVIDENCE))


async def test_a_missed_seed_is_armed_anew(court: Court) -> None:
    dispute = await court.by(court.challenger).accuse(Accusation(court.receipt(3), EVIDENCE))
    with pytest.raises(TransactionReverted, match="SeedNotMined"):
        await court.by(court.challenger).draw(dispute)
    court.ganache.mine(258)
    assert await court.by(court.challenger).draw(dispute) is None
    court.ganache.mine(1)
    assert sum((await court.reader_draws(dispute)).values()) == 5


async def test_jurors_come_and_go(court: Court) -> None:
    newcomer = court.owner
    pool = await court.by(newcomer).pool()
    assert not (await pool.juror(newcomer.address)).joined
    least = await pool.min_stake()
    await pool.join(newcomer.address, least)
    await pool.add_stake(least)
    await pool.begin_leave(Nectar(2 * least))
    record = await pool.juror(newcomer.address)
    assert (record.stake, record.unbonding, record.owner) == (0, 2 * least, newcomer.address)
    court.ganache.advance(await pool.unbonding_delay() + 1)
    assert await pool.withdraw_stake() == 2 * least


async def test_a_network_without_a_jury_says_so(court: Court) -> None:
    assert court.chain.network.disputes != ZERO_ADDRESS
    old = replace(court.chain.network, disputes=ZERO_ADDRESS)
    async with await Chain.connect(old) as chain:
        with pytest.raises(ConfigError, match="no jury"):
            Disputes(chain)


async def test_an_accusation_that_could_only_revert_is_refused_here(court: Court) -> None:
    with pytest.raises(InvalidInput):
        Accusation(court.receipt(4), ZERO_HASH)
    with pytest.raises(InvalidInput):
        Accusation(court.receipt(4), EVIDENCE, "x" * 257)
