"""Three nodes lie about their work: validators find it out, juries of them convict each within a minute, everyone is
paid what is theirs, and no one uses the liars again."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from explorer_page import explorer_page, row
from marketplace import Buyer, buyer, eventually, greedy, question
from playwright.async_api import expect

from corolla.devnet.devnet import WITH_JURY, Devnet, DevnetPlan
from corolla.devnet.node import installed
from corolla.devnet.validator import DevnetValidator
from corolla_core.chain.disputes import Dispute, Disputes, Outcome, Vote
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.ids import Address
from corolla_core.protocol.span import Span

pytestmark = pytest.mark.anyio

LIAR = str(Path(__file__).with_name("liar.py"))
THIRDS = (Span(0, 10), Span(10, 20), Span(20, 30))
CHEATS = ("skip", "nf4", "poison")
PLACES = ("a garden", "a desert", "a pond")
MINUTE = 60.0


@pytest.fixture(scope="module")
async def court(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Devnet]:
    """Three liars, whom clients choose for they say they are fast, an honest node beside each, and three validators."""
    plan = DevnetPlan(
        model=str(checkpoint),
        spans=THIRDS,
        standbys=THIRDS,
        settings={"redeem_interval": 2.0},
        programs={f"node-{n}": (sys.executable, LIAR, cheat) for n, cheat in enumerate(CHEATS)},
        validators=3,
        terms=replace(WITH_JURY, dispute_period=10),
    )
    async with Devnet(plan, home=tmp_path_factory.mktemp("court")) as devnet:
        yield devnet


async def test_all_of_them_hold_their_weights_which_is_not_computing_with_them(court: Devnet) -> None:
    nodes = {node.account for node in court.all_nodes}

    async def shown() -> bool:
        return {e["node"] for v in court.validators for e in v.events("possession") if e["outcome"] == "held"} == nodes

    await eventually(shown, within=180, what="every node shows its weights")
    for validator in court.validators:
        assert not [e for e in validator.events("possession") if e["outcome"] in ("wrong", "refused")]


async def test_liars_are_convicted_within_a_minute_and_everyone_gets_what_is_theirs(court: Devnet) -> None:
    liars = dict(zip((node.account for node in court.nodes), CHEATS, strict=True))
    async with await Chain.connect(court.network) as chain:
        registry, disputes, token = Registry(chain), Disputes(chain), Token(chain)
        stakes = {node.account: (await registry.node(node.account)).stake for node in court.all_nodes}
        purses = {validator.account: await token.balance_of(validator.account) for validator in court.validators}
        async with buyer(court) as customer:
            ended = await asyncio.gather(*(serve(customer, place) for place in PLACES))
            first = min(ended)
            convicted: dict[Address, float] = {}

            async def all_convicted() -> bool:
                for account in liars.keys() - convicted.keys():
                    if (await registry.node(account)).stake < stakes[account]:
                        convicted[account] = time.monotonic() - first
                        print(f"{liars[account]}: {convicted[account]:.1f} s after the first session")
                return len(convicted) == len(liars)

            await eventually(all_convicted, within=5 * MINUTE, what="every liar is convicted")
            held = [await disputes.dispute(number) for number in range(1, await disputes.count() + 1)]
            # A jury that has not the time to vote is a draw, after which the node is charged again.
            verdicts = [dispute for dispute in held if dispute.outcome is Outcome.FAULTY]
            assert {dispute.node for dispute in held} == liars.keys()
            assert len(verdicts) == len(liars)
            for account in liars:
                assert not await registry.is_active(account)
            for node in court.standbys:
                assert (await registry.node(node.account)).stake == stakes[node.account]
                assert await registry.is_active(node.account)
            await refunded(court, chain, customer, verdicts)
        for validator in court.validators:
            account = validator.account
            due = purses[account] + sum([await earned(disputes, dispute, account) for dispute in verdicts])

            async def paid(account: Address = account, due: int = due) -> bool:
                return await token.balance_of(account) >= due

            await eventually(paid, within=MINUTE, what="challengers and jurors have their rewards")
    async with buyer(court) as customer:
        again = await customer.client.generate(question("What grows on the moon?"), greedy(4))
    honest = {node.account for node in court.standbys}
    assert {hop.account for hop in again.route} == honest

    async def all_audited() -> bool:
        return {e["node"] for v in court.validators for e in v.events("audit")} == liars.keys() | honest

    await eventually(all_audited, within=90, what="the honest nodes are audited, too")
    for validator in court.validators:
        for event in validator.events("audit"):
            assert event["outcome"] == ("failed" if event["node"] in liars else "passed")


async def test_the_evidence_of_a_verdict_gives_it_again(court: Devnet) -> None:
    found = ((v, event) for v in court.validators for event in v.events("audit") if event["outcome"] == "failed")
    validator, failed = next(found)
    again, status = await command(validator, court, "report", "--evidence", failed["evidence"])
    assert status == 0
    assert (again[0]["outcome"], again[0]["stands"], again[0]["node"]) == ("failed", True, failed["node"])
    table, status = await command(validator, court, "report", "--node", failed["node"])
    assert status == 0
    assert failed["evidence"] in [event.get("evidence") for event in table]


async def test_the_explorer_shows_who_was_slashed_and_a_killed_node_red_within_five_seconds(
    court: Devnet, tmp_path: Path
) -> None:
    async with explorer_page(court, court.validators[0], tmp_path) as page:
        for node in court.nodes:
            await expect(row(page, node.account).locator('[data-state="slashed"]')).to_be_visible(timeout=60_000)
        for node in court.standbys:
            await expect(row(page, node.account).locator('[data-state="serving"]')).to_be_visible(timeout=60_000)
        await expect(page.locator("#gaps")).to_have_text("All 30 blocks are served")
        victim = court.standbys[0]
        await victim.kill()
        killed = time.monotonic()
        bar = page.locator(f'.heat li[data-account="{victim.account}"] .bar')
        await expect(bar).to_have_attribute("data-state", "down", timeout=5_000)
        print(f"red {time.monotonic() - killed:.1f} s after it was killed")
        # the liar beside it still answers, and no client would use it
        await expect(page.locator("#gaps")).to_have_text(f"Blocks 0–{victim.span.end - 1}: served by nobody")
        await page.click('nav a[href="#justice"]')
        faulty = page.locator('#disputes tbody tr[data-state="faulty"]')
        await expect(faulty).to_have_count(len(court.nodes))
        async with await Chain.connect(court.network) as chain:
            for line in await faulty.all():
                titles = await line.locator(".hash").evaluate_all("all => all.map(one => one.title)")
                opened, concluded = (each for each in titles if len(each) == 66)
                for transaction in (opened, concluded):
                    assert (await chain.request("eth_getTransactionReceipt", transaction))["status"] == "0x1"


async def serve(customer: Buyer, place: str) -> float:
    """One question to the liars; returns when it was answered."""
    answer = await customer.client.generate(question(f"What grows in {place}?"), greedy(8))
    assert {hop.account for hop in answer.route} == {node.account for node in customer.devnet.nodes}
    return time.monotonic()


async def refunded(court: Devnet, chain: Chain, customer: Buyer, verdicts: list[Dispute]) -> None:
    """The client gets back all that the liars got from it, and can withdraw it."""
    signer = customer.account.signer
    claimed = await customer.claimed(Escrow(chain))
    for dispute in verdicts:
        assert dispute.client == signer.address
        assert 0 < dispute.harm == claimed[dispute.node]
    disputes, token = Disputes(chain, TransactionSender(chain, signer)), Token(chain)
    credit, before = await disputes.credit(signer.address), await token.balance_of(signer.address)
    assert credit == sum(claimed[node.account] for node in court.nodes)
    assert await disputes.withdraw() == credit
    assert await token.balance_of(signer.address) == before + credit


async def earned(disputes: Disputes, dispute: Dispute, account: Address) -> int:
    """What a validator must have gained by a dispute at least: a juror of the majority by its seats, and who brought it
    has more than its bond again."""
    ballot = await disputes.ballot(dispute.id, dispute.round, account)
    if dispute.challenger == account:
        assert ballot.seats == 0
        return 1
    assert dispute.seat_reward > 0
    return ballot.seats * dispute.seat_reward if ballot.vote is Vote.FAULTY else 0


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
