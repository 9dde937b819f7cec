"""The index knows what became of the accused and the caught: what it adds up to is what the contracts say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from ganache import Ganache
from test_chain_faults import LEAVES, PARAMETERS, ROWS, X
from test_chain_faults import STAKE as NODE_STAKE
from test_chain_faults import World as FaultWorld
from test_disputes import EVIDENCE, Court
from test_disputes import TERMS as JURY_TERMS

from corolla_core.chain.deploy import deploy_all
from corolla_core.chain.disputes import Accusation, Outcome, Vote
from corolla_core.chain.faults import ChallengeState, Side
from corolla_core.chain.indexer import Indexer
from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain
from corolla_core.chain.state import NetworkState, fold
from corolla_core.protocol.ids import Address
from corolla_core.protocol.merkle import merkle_proof
from corolla_core.protocol.units import Nectar

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def network(ganache: Ganache) -> Network:
    terms = replace(JURY_TERMS, faults=PARAMETERS)
    return asyncio.run(deploy_all(ganache.url, ganache.accounts[0], terms=terms, name="test"))


@pytest.fixture
async def chain(network: Network, ganache: Ganache) -> AsyncIterator[Chain]:
    snapshot = ganache.snapshot()
    async with await Chain.connect(network) as chain:
        yield chain
    ganache.revert(snapshot)


async def state_of(index: Indexer) -> NetworkState:
    await index.poll()
    return fold(indexed.event for indexed in index.events)


async def test_a_dispute_with_its_appeal_is_told_to_its_last_reward(chain: Chain, ganache: Ganache) -> None:
    court, index = Court(chain, ganache), Indexer(chain)
    await court.set_up()
    challenger = court.by(court.challenger)
    dispute = await challenger.accuse(Accusation(court.receipt(1), EVIDENCE, "https://evidence.example"))
    opened = (await state_of(index)).justice.disputes[dispute]
    assert (opened.node, opened.challenger, opened.outcome) == (
        court.node.address,
        court.challenger.address,
        Outcome.OPEN,
    )
    assert (opened.evidence_hash, opened.evidence_uri) == (EVIDENCE, "https://evidence.example")
    juries = [await court.jury_votes(dispute, Vote.CORRECT)]
    await challenger.appeal(dispute)
    juries.append(await court.jury_votes(dispute, Vote.FAULTY))
    parameters = await court.reader.parameters()
    await court.past("reveal_until", dispute, extra=parameters.appeal_period)
    await challenger.conclude(dispute)
    await challenger.settle(dispute, list(court.jurors))

    state = await state_of(index)
    told, found = state.justice.disputes[dispute], await court.reader.dispute(dispute)
    assert told.outcome is found.outcome is Outcome.FAULTY
    assert [dict(jury.seats) for jury in told.rounds] == juries
    assert [jury.said(Vote.FAULTY) for jury in told.rounds] == [0, 11]
    assert [jury.said(Vote.CORRECT) for jury in told.rounds] == [5, 0]
    for number, jury in enumerate(told.rounds):
        on_chain = await court.reader.round(dispute, number)
        assert (jury.patron, jury.bond, jury.commit_until) == (on_chain.patron, on_chain.bond, on_chain.commit_until)
    assert told.slashed == NODE_STAKE - state.nodes[court.node.address].stake > 0
    everybody = {*court.jurors, court.challenger.address, court.owner.address, court.node.address}
    for account in everybody:
        assert told.credited.get(account, 0) == await court.reader.credit(account)
    penalties = dict.fromkeys(court.jurors, 0)
    for juror in court.jurors:
        for number in range(2):
            ballot = await court.reader.ballot(dispute, number, juror)
            penalties[juror] += ballot.penalty if ballot.vote is Vote.CORRECT else 0
    assert {juror: told.penalties.get(juror, 0) for juror in court.jurors} == penalties
    assert sum(penalties.values()) > 0
    assert all(told.rewards[juror] == told.credited[juror] for juror in juries[1])
    assert state.nodes[court.node.address].jailed_until > await chain.now()
    assert not state.nodes[court.node.address].tombstoned


async def test_faults_and_openings_end_as_the_contract_says_and_a_reorg_takes_them_back(
    chain: Chain, ganache: Ganache
) -> None:
    world, index = FaultWorld(chain, ganache), Indexer(chain)
    forker, opener, silent = [await world.node(number) for number in (7, 8, 9)]
    faults = world.faults(world.challenger)
    await world.mint(world.challenger, Nectar(100))
    receipt = await world.receipt()
    tranches = {node.address: await world.paid(node, receipt) for node in (opener, silent)}
    before = await state_of(index)
    assert before.justice.faults == before.justice.openings == {}
    snapshot = ganache.snapshot()

    punished = await faults.prove_equivocation(receipt.sign(forker), replace(receipt, in_root=X).sign(forker))
    answered = await faults.challenge_opening(receipt.sign(opener), 3, Side.INPUT, tranche=tranches[opener.address])
    assert (await state_of(index)).justice.openings[answered].state is ChallengeState.OPEN
    await world.faults(opener).open(answered, ROWS[3], [sibling for _, sibling in merkle_proof(LEAVES, 3)])
    state = await state_of(index)
    opening = state.justice.openings[answered]
    assert (opening.node, opening.challenger, opening.position) == (opener.address, world.challenger.address, 3)
    assert opening.state is ChallengeState.ANSWERED
    (fault,) = state.justice.faults[forker.address]
    assert fault.fault.rstrip(b"\x00") == b"equivocation"
    assert (fault.amount, fault.reward) == (punished.taken, punished.reward)
    assert state.nodes[forker.address].tombstoned

    ganache.revert(snapshot)
    ganache.mine()
    assert await state_of(index) == before
    asked = await faults.challenge_opening(receipt.sign(silent), 4, Side.OUTPUT, tranche=tranches[silent.address])
    ganache.advance(PARAMETERS.response_time + 5)
    await faults.expire_opening(asked)
    expired = (await state_of(index)).justice
    assert (expired.openings[asked].state, expired.openings[asked].punished) == (ChallengeState.EXPIRED, True)
    assert _taken(expired.faults, silent.address) == NODE_STAKE - await world.stake_of(silent)


def _taken(faults: object, node: Address) -> int:
    return sum(fault.amount for fault in faults[node])  # type: ignore[index]
