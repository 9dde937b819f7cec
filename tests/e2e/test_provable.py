"""What a node's signatures prove costs it its stake within a minute: no audit, no jury, and nobody else is touched."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from marketplace import buyer, eventually, greedy, question

from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla_core.chain.faults import FaultParameters
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.token import Token
from corolla_core.protocol.span import Span

pytestmark = pytest.mark.anyio

LIAR = str(Path(__file__).with_name("liar.py"))
THIRDS = (Span(0, 10), Span(10, 20), Span(20, 30))
FOR_GOOD = 2**64 - 1
TERMS = FaultParameters()
BPS = 10_000
FAULTS = {"fork": "fork", "mislink": "broken link", "falseweights": "false weights"}
TAKEN = {"fork": BPS, "mislink": BPS, "falseweights": TERMS.weights_bps}
MINUTE = 60.0


@pytest.fixture(scope="module")
async def devnet(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Devnet]:
    """Three liars, an honest node beside each, and a validator that recomputes nothing: it only reads receipts."""
    plan = DevnetPlan(
        model=str(checkpoint),
        spans=THIRDS,
        standbys=THIRDS,
        programs={f"node-{n}": (sys.executable, LIAR, cheat) for n, cheat in enumerate(FAULTS)},
        validators=1,
        probability="0",
    )
    async with Devnet(plan, home=tmp_path_factory.mktemp("provable")) as devnet:
        yield devnet


async def test_each_provable_fault_is_punished_within_a_minute_and_nobody_else(devnet: Devnet) -> None:
    (validator,) = devnet.validators
    liars = dict(zip(FAULTS, (node.account for node in devnet.nodes), strict=True))
    async with await Chain.connect(devnet.network) as chain:
        registry, token = Registry(chain), Token(chain)
        stakes = {node.account: (await registry.node(node.account)).stake for node in devnet.all_nodes}
        purse = await token.balance_of(validator.account)
        async with buyer(devnet) as customer:
            answer = await customer.client.generate(question("What grows in a garden?"), greedy(8))
        ended = time.monotonic()
        assert set(liars.values()) <= {node.account for node in answer.usage.per_node}, "every liar took part"
        # The client saw two of them lie, and went on without them; the fork was none to it.
        assert {hop.account for hop in answer.route} & set(liars.values()) == {liars["fork"]}

        async def gone(account: str) -> bool:
            return (await registry.node(account)).stake < stakes[account]  # type: ignore[arg-type,index]

        for cheat, account in liars.items():
            await eventually(lambda account=account: gone(account), within=3 * MINUTE, what=f"the {cheat} is punished")  # type: ignore[misc]
            print(f"{cheat}: {time.monotonic() - ended:.1f} s after the session")

        rewards = 0
        for cheat, account in liars.items():
            record, taken = await registry.node(account), stakes[account] * TAKEN[cheat] // BPS
            assert record.stake == stakes[account] - taken
            assert (record.jailed_until == FOR_GOOD) is (TAKEN[cheat] == BPS)
            assert record.jailed_until > time.time()
            assert not record.active
            rewards += taken * TERMS.reward_bps // BPS
        assert await token.balance_of(validator.account) == purse + rewards
        proven = {(event["fault"], event["node"]) for event in validator.events("proven")}
        assert proven == {(FAULTS[cheat], account) for cheat, account in liars.items()}
        assert len(validator.events("fault")) == len(liars)
        for node in devnet.standbys:
            record = await registry.node(node.account)
            assert record.active
            assert record.stake == stakes[node.account]
    async with buyer(devnet) as customer:
        again = await customer.client.generate(question("What grows on the moon?"), greedy(4))
    assert {hop.account for hop in again.route} == {node.account for node in devnet.standbys}
