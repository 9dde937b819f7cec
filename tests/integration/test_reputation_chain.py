"""Validators score nodes through the bindings, against the real contracts on Ganache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from eth_utils.crypto import keccak
from ganache import Ganache, running_ganache

from corolla_core.chain.abi import load_abi
from corolla_core.chain.deploy import ScoreTerms, Terms, VoteTerms, deploy_all
from corolla_core.chain.faults import FaultParameters
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

DAY = 86_400
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


async def test_the_governor_proposes_to_the_timelock_that_owns_the_oracle(chain: Chain, ganache: Ganache) -> None:
    network, deployer = chain.network, ganache.accounts[0].address
    timelock = load_abi("TimelockController")
    for role in (keccak(text="PROPOSER_ROLE"), keccak(text="CANCELLER_ROLE")):
        assert await chain.read(network.timelock, timelock, "hasRole", role, network.governor)
    assert await chain.read(network.timelock, timelock, "hasRole", keccak(text="EXECUTOR_ROLE"), ZERO_ADDRESS)
    assert not await chain.read(network.timelock, timelock, "hasRole", bytes(32), deployer)
    assert await chain.read(network.reputation, load_abi("ReputationOracle"), "owner") == network.timelock
    governor = load_abi("NectarGovernor")
    assert await chain.read(network.governor, governor, "timelock") == network.timelock
    assert await chain.read(network.governor, governor, "token") == network.token


async def test_off_a_devnet_the_governor_alone_proposes(tmp_path: Path) -> None:
    terms = Terms(
        unbonding_delay=14 * DAY,
        audit_window=DAY,
        thaw_delay=3_600,
        scores=ScoreTerms(commit_seconds=3_600, reveal_seconds=3_600, min_ratings=3),
        votes=VoteTerms(voting_delay=7_200, voting_period=21_600),
        faults=FaultParameters(response_time=3_600, jail=3_600),
        juror_unbonding=14 * DAY,
        dispute_period=3_600,
    )
    with running_ganache(chain_id=5) as chain_5:
        deployer = Signer(b"\x11" * 32)  # the funded accounts' keys are public, and refused here
        gas = {"from": chain_5.accounts[0].address, "to": deployer.address, "value": hex(10**19)}
        chain_5.rpc("eth_sendTransaction", gas)
        network = await deploy_all(chain_5.url, deployer, terms=terms, name="test")
        async with await Chain.connect(network) as chain:
            timelock, role = load_abi("TimelockController"), keccak(text="PROPOSER_ROLE")
            assert not await chain.read(network.timelock, timelock, "hasRole", role, deployer.address)
            assert await chain.read(network.timelock, timelock, "hasRole", role, network.governor)
    assert Network.load(network.save(tmp_path)) == network


def test_a_networks_file_from_before_reputation_still_loads(network: Network, tmp_path: Path) -> None:
    path = network.save(tmp_path)
    old = {k: v for k, v in msgspec.json.decode(path.read_bytes()).items() if k not in ("reputation", "governor")}
    path.write_bytes(msgspec.json.encode(old))
    loaded = Network.load(path)
    assert (loaded.has_reputation, loaded.governor) == (False, ZERO_ADDRESS)
    assert loaded == replace(network, reputation=ZERO_ADDRESS, governor=ZERO_ADDRESS)


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
