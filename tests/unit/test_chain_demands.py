"""Challenges are found on the chain whenever a node looks: after restarts, outages and reorganisations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi.abi import encode
from simchain import LOGGER, RefusedError, SimChain, network

from corolla_core.chain.abi import load_abi
from corolla_core.chain.demands import OVERLAP, Demand, DemandLog
from corolla_core.chain.faults import MAX_RESPONSE_SECONDS, Side
from corolla_core.chain.rpc import Chain
from corolla_core.protocol.errors import ChainError, ChainUnreachable
from corolla_core.protocol.ids import Address, Hash32, address, address_bytes
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.units import UnixTime

pytestmark = pytest.mark.anyio
NODE, OTHER_NODE, STRANGER = (address(bytes([byte]) * 20) for byte in (0xD0, 0xD1, 0x57))
DEADLINE = UnixTime(1_900_000_000)
SENDER = Signer(b"\x05" * 32)


class World:
    """A simulated chain on which challenges are made."""

    def __init__(self) -> None:
        self.sim = SimChain()
        self.sent = 0
        self.chain = Chain(replace(network(), faults=LOGGER), transport=self.sim, clock=self.sim.clock(), deadline=5.0)

    def log(self, node: Address = NODE) -> DemandLog:
        return DemandLog(self.chain, node)

    def challenge(self, number: int, *, node: Address = NODE, side: int = 1) -> Demand:
        """A block with one challenge in it."""
        challenge, receipt = Hash32(bytes([number]) * 32), Hash32(bytes([number, 1]) * 16)
        padded = [bytes(12) + address_bytes(who) for who in (node, STRANGER)]
        topics = [load_abi("Faults").topic("OpeningChallenged"), challenge, *padded]
        data = encode(["bytes32", "uint64", "uint8", "uint64"], [receipt, number, side, DEADLINE])
        self.send(b"".join([bytes([4]), *topics, data]))
        return Demand(challenge, node, STRANGER, receipt, number, Side(side % 2), DEADLINE)

    def send(self, data: bytes) -> None:
        self.sim.intrude(SENDER, self.sent, data, max_fee=10**12, tip=1, to=LOGGER)
        self.sent += 1
        self.sim.mine()

    def mine(self, count: int) -> None:
        for _ in range(count):
            self.sim.mine(empty=True)


@pytest.fixture
async def world() -> World:
    return World()


async def test_challenges_of_this_node_are_told_as_they_come(world: World) -> None:
    log = world.log()
    first = world.challenge(1)
    world.challenge(2, node=OTHER_NODE)
    assert await log.news() == [first]
    world.mine(OVERLAP)
    assert await log.news() == []
    second, third = world.challenge(3, side=0), world.challenge(4)
    assert await log.news() == [second, third]


async def test_a_restart_finds_all_that_may_still_be_open_and_reads_no_further_back(world: World) -> None:
    world.challenge(1)
    world.mine(200)
    open_still = world.challenge(2)
    world.mine(300)
    # The chain's first 100 blocks are older than any challenge can be that is still open.
    world.sim.blocks[:100] = [
        replace(block, timestamp=block.timestamp - MAX_RESPONSE_SECONDS) for block in world.sim.blocks[:100]
    ]
    assert await world.log().news() == [open_still]


async def test_an_outage_in_the_middle_of_reading_loses_nothing(world: World) -> None:
    first = world.challenge(1)
    world.mine(30)
    second = world.challenge(2)
    log = DemandLog(world.chain, NODE, range_size=20)
    reads = 0

    def before(method: str) -> None:
        nonlocal reads
        reads += method == "eth_getLogs"
        if reads > 1:
            raise ConnectionError("down")

    world.sim.before = before
    with pytest.raises(ChainUnreachable):
        await log.news()  # the first range was read, the second is not answered
    world.sim.before = lambda method: None
    assert list(dict.fromkeys(await log.news())) == [first, second]


async def test_a_challenge_that_a_reorganisation_moved_is_found_where_it_went(world: World) -> None:
    log = world.log()
    world.mine(10)
    demand = world.challenge(1)
    world.mine(5)
    assert await log.news() == [demand]
    world.sim.reorganise(8)
    world.mine(3)
    assert await log.news() == []
    world.sim.mine()
    assert await log.news() == [demand]


async def test_an_endpoint_that_bounds_its_ranges_is_asked_for_less(world: World) -> None:
    demands = [world.challenge(number) for number in range(1, 40)]
    honest = world.sim.eth_getLogs

    def bounded(query: dict[str, str]) -> list[dict[str, object]]:
        if int(query["toBlock"], 16) - int(query["fromBlock"], 16) >= 7:
            raise RefusedError("range too wide")
        return honest(query)

    world.sim.eth_getLogs = bounded  # type: ignore[method-assign]
    assert await world.log().news() == demands


@pytest.mark.parametrize("bad", ["nonsense", None, [{"address": "x"}]])
async def test_an_endpoint_that_talks_nonsense_is_a_typed_error(world: World, bad: object) -> None:
    world.sim.eth_getLogs = lambda query: bad  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ChainError):
        await world.log().news()


async def test_a_side_that_does_not_exist_is_a_typed_error(world: World) -> None:
    world.challenge(1, side=2)
    with pytest.raises(ChainError, match="side"):
        await world.log().news()


async def test_logs_that_are_no_challenges_are_passed_over(world: World) -> None:
    world.send(b"\x01" + bytes(32) + b"who knows")
    answered = load_abi("Faults").topic("OpeningAnswered")
    world.send(b"\x03" + answered + bytes(32) + bytes(12) + address_bytes(NODE) + encode(["bytes"], [b"row"]))
    assert await world.log().news() == []
