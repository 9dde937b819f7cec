"""Nodes that lie about their work are found out by what they sign and open; honest ones are not."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from marketplace import buyer, eventually, greedy, question

from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.node import installed
from corolla.devnet.validator import DevnetValidator
from corolla_core.protocol.span import Span

pytestmark = pytest.mark.anyio

PROMPT = question("Name three flowers and say what each of them smells of.")
TOKENS = 24
LIAR = str(Path(__file__).with_name("liar.py"))
CHEATS = {"node-1": "skip", "node-2": "nf4", "node-3": "poison"}


@pytest.fixture(scope="module")
async def liars(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Devnet]:
    """One honest node, three that cheat each in its own way, and a validator that audits every session."""
    plan = DevnetPlan(
        model=str(checkpoint),
        spans=(Span(0, 10), Span(10, 17), Span(17, 24), Span(24, 30)),
        programs={name: (sys.executable, LIAR, cheat) for name, cheat in CHEATS.items()},
        validators=1,
    )
    async with Devnet(plan, home=tmp_path_factory.mktemp("liars")) as devnet:
        yield devnet


async def test_every_cheat_is_found_and_the_honest_node_passes(liars: Devnet) -> None:
    (validator,) = liars.validators
    accounts = {node.name: node.account for node in liars.nodes}
    async with buyer(liars) as customer:
        await customer.client.generate(PROMPT, greedy(TOKENS))
    outcomes = await audited(validator, len(accounts))
    assert outcomes[accounts["node-0"]] == ("passed", "clear")
    for name, cheat in CHEATS.items():
        assert outcomes[accounts[name]] == ("failed", "quarantined"), cheat


async def test_all_of_them_hold_their_weights_which_is_not_computing_with_them(liars: Devnet) -> None:
    (validator,) = liars.validators
    nodes = {node.account for node in liars.nodes}

    async def shown() -> bool:
        return {e["node"] for e in validator.events("possession") if e["outcome"] == "held"} == nodes

    await eventually(shown, within=180, what="every node shows its weights")
    assert not [e for e in validator.events("possession") if e["outcome"] in ("wrong", "refused")]


async def test_three_sessions_make_a_dispute_of_it(liars: Devnet) -> None:
    (validator,) = liars.validators
    skipper = liars.nodes[1].account
    for place in ("a garden", "a forest"):
        async with buyer(liars) as customer:
            await customer.client.generate(question(f"What grows in {place}?"), greedy(8))

    async def disputed() -> bool:
        return any(e["node"] == skipper and e["standing"] == "disputed" for e in validator.events("audit"))

    await eventually(disputed, within=60, what="the skipping node is disputed")
    honest = [e for e in validator.events("audit") if e["node"] == liars.nodes[0].account]
    assert {event["standing"] for event in honest} == {"clear"}


async def test_the_evidence_of_a_verdict_gives_it_again(liars: Devnet) -> None:
    (validator,) = liars.validators
    failed = next(event for event in validator.events("audit") if event["outcome"] == "failed")
    again, status = await command(validator, liars, "report", "--evidence", failed["evidence"])
    assert status == 0
    assert (again[0]["outcome"], again[0]["stands"], again[0]["node"]) == ("failed", True, failed["node"])
    table, status = await command(validator, liars, "report", "--node", failed["node"])
    assert status == 0
    assert next(event["evidence"] for event in table) == failed["evidence"]


async def audited(validator: DevnetValidator, nodes: int) -> dict[str, tuple[str, str]]:
    """What the first audit of each node found."""

    async def all_of_them() -> bool:
        return len({event["node"] for event in validator.events("audit")}) == nodes

    await eventually(all_of_them, within=90, what="every node is audited")
    found: dict[str, tuple[str, str]] = {}
    for event in validator.events("audit"):
        found.setdefault(event["node"], (event["outcome"], event["standing"]))
    return found


async def command(validator: DevnetValidator, devnet: Devnet, *words: str) -> tuple[list[dict[str, Any]], int]:
    """`validator <words> --json`, on the books of one that runs: what it printed, and its exit status."""
    process = await asyncio.create_subprocess_exec(
        installed("validator"),
        *words,
        f"--model={devnet.plan.model}",
        "--json",
        env=validator.environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, _err = await process.communicate()
    return [json.loads(line) for line in out.splitlines()], process.returncode or 0
