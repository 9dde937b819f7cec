"""Validators score nodes through the bindings, against the real contracts on Ganache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from ganache import Ganache

from corolla_core.chain.deploy import ScoreTerms, Terms, deploy_all
from corolla_core.chain.network import Network
from corolla_core.chain.registry import Registry
from corolla_core.chain.reputation import NodeScore, Phase, Reputation, ScoreSheet, Settlement
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import ConfigError, InvalidInput, TransactionReverted
from corolla_core.protocol.ids import ZERO_ADDRESS, Address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import ONE_NECTAR, Nectar

pytestmark = pytest.mark.anyio

STAKE = Nectar(200 * ONE_NECTAR)
TERMS = Terms(scores=ScoreTerms(commit_seconds=1_000, reveal_seconds=1_000, min_ratings=2))


@pytest.fixture(scope="module")
def network(ganache: Ganache) -> Network:
    return asyncio.run(deploy_all(ganache.url, ganache.accounts[0], terms=TERMS, name="test"))


@pytest.fixture
async def chain(network: Network) -> AsyncIterator[Chain]:
    async with await Chain.connect(network) as chain:
        yield chain


async def validator(chain: Chain, ganache: Ganache, signer: Signer) -> Reputation:
    sender = TransactionSender(chain, signer)
    if not await Registry(chain).is_active(signer.address):
        await Token(chain, TransactionSender(chain, ganache.accounts[0])).mint(signer.address, STAKE)
        await Registry(chain, sender).register(b"validator", signer.address, STAKE)
    return Reputation(chain, sender)


async def to_phase(oracle: Reputation, ganache: Ganache, phase: Phase) -> None:
    """On to the next start of a phase."""
    while True:
        ganache.advance(max(1, (await oracle.now()).until - await oracle.chain.now()))
        if (await oracle.now()).phase is phase:
            return


async def test_scores_are_committed_revealed_settled_and_read_in_one_call(chain: Chain, ganache: Ganache) -> None:
    first, second = [await validator(chain, ganache, ganache.accounts[n]) for n in (1, 2)]
    good, bad, unknown = (ganache.accounts[n].address for n in (5, 6, 7))
    sheets = [ScoreSheet.of({good: 60_000, bad: low}, salt=bytes([low]) * 32) for low in (5, 7)]
    await to_phase(first, ganache, Phase.COMMIT)
    epoch = await first.commit(sheets[0])
    assert await second.commit(sheets[1]) == epoch
    await to_phase(first, ganache, Phase.REVEAL)
    await first.reveal(sheets[0])
    await second.reveal(sheets[1])
    await to_phase(first, ganache, Phase.COMMIT)
    await Reputation(chain, TransactionSender(chain, ganache.accounts[9])).settle(epoch, [good, bad])
    assert await Reputation(chain).scores([bad, unknown, good]) == {
        bad: NodeScore(5, epoch),
        unknown: None,
        good: NodeScore(60_000, epoch),
    }
    assert await first.settled(bad) == Settlement(5, 6, 2, 0, epoch, Nectar(2 * STAKE))
    assert await first.settled(unknown) is None
    assert NodeScore(65_535, epoch).fraction == 1.0


async def test_many_scores_are_read_in_pieces(chain: Chain) -> None:
    nodes = [Address("0x" + f"{n:040d}") for n in range(300)]
    assert await Reputation(chain).scores(nodes) == dict.fromkeys(nodes)


async def test_an_unrevealed_commitment_shows_and_a_wrong_reveal_says_why(chain: Chain, ganache: Ganache) -> None:
    oracle = await validator(chain, ganache, ganache.accounts[3])
    node = ganache.accounts[5].address
    await to_phase(oracle, ganache, Phase.COMMIT)
    await oracle.commit(ScoreSheet.of({node: 1}, salt=bytes(32)))
    await to_phase(oracle, ganache, Phase.REVEAL)
    with pytest.raises(TransactionReverted, match="CommitmentMismatch"):
        await oracle.reveal(ScoreSheet.of({node: 2}, salt=bytes(32)))
    assert await oracle.missed(oracle.sender.address) == 0
    await to_phase(oracle, ganache, Phase.COMMIT)
    assert await oracle.missed(oracle.sender.address) == 1


async def test_a_network_without_an_oracle_says_so(network: Network) -> None:
    async with await Chain.connect(replace(network, reputation=ZERO_ADDRESS)) as chain:
        with pytest.raises(ConfigError, match="no reputation oracle"):
            Reputation(chain)


@pytest.mark.parametrize(
    ("scores", "salt"), [({}, bytes(32)), ({ZERO_ADDRESS: 65_536}, bytes(32)), ({ZERO_ADDRESS: 1}, b"short")]
)
def test_a_sheet_that_cannot_be_revealed_is_never_committed(scores: dict[Address, int], salt: bytes) -> None:
    with pytest.raises(InvalidInput):
        ScoreSheet.of(scores, salt=salt)
