"""A call is mined at most once, whatever is lost, dropped, replaced or reorganised; and success means exactly once."""

from __future__ import annotations

import asyncio
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from simchain import OTHER, SimChain, Weather, network

from corolla_core.chain.account import Call
from corolla_core.chain.mined import Mined
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import Patience, TransactionSender
from corolla_core.protocol.errors import ChainError, ChainUnreachable, RpcRefused, TransactionNotMined
from corolla_core.protocol.signature import Signer

SIGNER = Signer(b"\x11" * 32)
DEPTH = 3


def one_run(seed: int, *, reorgs: bool) -> tuple[SimChain, dict[bytes, list[Mined | ChainError]]]:
    rng = Random(seed)
    sim = SimChain()
    Weather(sim, SIGNER, rng, calm_after=rng.choice([20.0, 60.0, 200.0]), deepest_reorg=DEPTH - 1 if reorgs else 0)
    outcomes: dict[bytes, list[Mined | ChainError]] = {}

    async def pay(sender: TransactionSender, data: bytes) -> None:
        """Send, and send again as long as the outcome is unknown, as a careful caller does."""
        call = Call(OTHER, data)
        for _ in range(rng.randint(1, 4)):
            try:
                outcomes.setdefault(data, []).append(await sender.send(call))
                return
            except ChainError as error:
                outcomes.setdefault(data, []).append(error)
                if not isinstance(error, TransactionNotMined):
                    return

    async def run() -> None:
        chain = Chain(network(), transport=sim, deadline=15.0, clock=sim.clock())
        patience = Patience(mined=rng.choice([5.0, 60.0, 400.0]), bump=10.0, rebroadcast=2.0, replaced_depth=DEPTH)
        senders = [TransactionSender(chain, SIGNER, patience=patience) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            for n in range(rng.randint(1, 4)):
                group.create_task(pay(senders[n % 2], b"call %d" % n))

    asyncio.run(run())
    for _ in range(3):
        sim.mine()
    return sim, outcomes


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_call_is_ever_mined_twice(seed: int) -> None:
    sim, outcomes = one_run(seed, reorgs=True)
    executed = sim.executed()
    assert all(executed[data] <= 1 for data in outcomes)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_success_means_mined_once_and_a_refusal_means_never(seed: int) -> None:
    sim, outcomes = one_run(seed, reorgs=False)
    executed = sim.executed()
    for data, ends in outcomes.items():
        last = ends[-1]
        assert executed[data] <= 1
        if isinstance(last, Mined):
            assert executed[data] == 1
        elif len(ends) == 1 and isinstance(last, (ChainUnreachable, RpcRefused)):
            assert executed[data] == 0
