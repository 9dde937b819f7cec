"""Each usual trouble is found, and what to do about it is said."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from node_peers import MODEL, signer
from simchain import CHAIN_ID, network
from typer.testing import CliRunner

from corolla.cli.doctor import judge_balance, judge_means
from corolla_core.chain.checkup import TRANSACTION_GAS, examine_gas, examined_chain, judge_clock, judge_gas
from corolla_core.config.checkup import examine_machine, examine_port, judge_descriptors, judge_disk, judge_threads
from corolla_core.protocol.errors import PeerUnreachable
from corolla_core.protocol.finding import Finding, rows
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Nectar
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.checkup import examine_swarm, judge_peer_clocks
from corolla_node.cli.doctor import judge_stake
from corolla_node.cli.main import app as node_app
from corolla_node.cli.shim import VERBS
from corolla_validator.cli.main import app as validator_app

pytestmark = pytest.mark.anyio
NOW = 1_000_000.0
ME = signer("me").address


class Rpc:
    """An endpoint with canned answers; an exception among them is raised."""

    def __init__(self, **answers: Any) -> None:
        block = {"timestamp": hex(int(NOW)), "number": "0x1", "hash": "0x" + "11" * 32}
        usual = {"eth_chainId": hex(CHAIN_ID), "eth_getBlockByNumber": block, "eth_getCode": "0x60"}
        self.answers = {**usual, "eth_getBalance": hex(10**18), "eth_gasPrice": hex(10**9), **answers}

    async def make_request(self, method: Any, params: Any) -> Any:
        await asyncio.sleep(0)
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return {"result": answer}


async def chain_findings(now: float = NOW, **answers: Any) -> dict[str, Finding]:
    findings: list[Finding] = []
    async with examined_chain(network(), findings, transport=Rpc(**answers), now=lambda: now, deadline=0.2) as chain:
        if chain is not None:
            findings.append(await examine_gas(chain, ME))
    return {finding.check: finding for finding in findings}


async def test_a_chain_that_is_well() -> None:
    found = await chain_findings()
    assert {check: one.state for check, one in found.items()} == {"rpc": "good", "clock": "good", "gas": "good"}
    assert all(one.advice == "" for one in found.values())


@pytest.mark.parametrize(
    ("answers", "now", "check", "state", "advice"),
    [
        ({"eth_chainId": "0x1"}, NOW, "rpc", "bad", "rpc_url"),
        ({"eth_getCode": "0x"}, NOW, "contracts", "bad", "started anew"),
        ({}, NOW - 100, "clock", "bad", "NTP"),
        ({}, NOW + 1000, "clock", "poor", "NTP"),
        ({"eth_getBalance": "0x0"}, NOW, "gas", "bad", ME),
        ({"eth_getBalance": hex(3 * TRANSACTION_GAS * 10**9)}, NOW, "gas", "poor", ME),
        ({"eth_gasPrice": "nonsense"}, NOW, "rpc", "bad", "use another"),
    ],
)
async def test_what_is_wrong_with_the_chain(
    answers: dict[str, Any], now: float, check: str, state: str, advice: str
) -> None:
    found = (await chain_findings(now, **answers))[check]
    assert found.state == state
    assert advice in found.advice


async def test_an_endpoint_that_is_down() -> None:
    found = await chain_findings(eth_chainId=ConnectionRefusedError("refused"))
    assert list(found) == ["rpc"]
    assert (found["rpc"].state, "devnet up" in found["rpc"].advice) == ("bad", True)


def announcement(span: Span, *, port: int = 1, issued_at: float = NOW, price: int = 5) -> Announcement:
    return Announcement(
        network="sim", model_root=MODEL, span=span, account=ME, peer_id="", host="127.0.0.1", port=port,
        cert_hash=Hash32(bytes(32)), price_per_token_block=price, numeric_class=NumericClass.FP32,
        wire_dtypes=NumericClass.FP32.wires, throughput=1, kv_free_tokens=1, state=NodeState.ONLINE,
        issued_at=int(issued_at * 1000), expires_at=int(issued_at * 1000) + 60_000,
    )  # fmt: skip


class Directory:
    def __init__(self, *found: Announcement, error: Exception | None = None) -> None:
        self.found, self.error, self.stopped = list(found), error, False

    async def lookup(self, *_about: object) -> list[Announcement]:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.found

    async def stop(self) -> None:
        self.stopped = True


async def swarm_findings(directory: Directory, bootstrap: tuple[str, ...] = ("maddr",)) -> dict[str, Finding]:
    async def start(**_how: object) -> Directory:
        await asyncio.sleep(0)
        return directory

    findings, _ = await examine_swarm("sim", bootstrap, MODEL, 4, start=start, now=lambda: NOW)
    return {finding.check: finding for finding in findings}


async def test_a_swarm_that_is_well() -> None:
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0) as server:
        directory = Directory(announcement(Span(0, 4), port=server.sockets[0].getsockname()[1]))
        found = await swarm_findings(directory)
    assert {check: one.state for check, one in found.items()} == {"dht": "good", "coverage": "good", "nodes": "good"}
    assert directory.stopped


async def test_an_empty_dht_uncovered_blocks_and_nodes_that_are_gone() -> None:
    empty = (await swarm_findings(Directory()))["coverage"]
    assert (empty.state, "clock" in empty.advice) == ("bad", True)
    found = await swarm_findings(Directory(announcement(Span(0, 2))))
    assert (found["coverage"].state, "--blocks auto" in found["coverage"].advice) == ("bad", True)
    assert (found["nodes"].state, "stale" in found["nodes"].advice) == ("bad", True)


async def test_a_dht_that_cannot_be_joined() -> None:
    assert (await swarm_findings(Directory(), bootstrap=()))["dht"].state == "bad"
    lost = await swarm_findings(Directory(error=PeerUnreachable("nobody", peer=ME)))
    assert (lost["dht"].state, "firewall" in lost["dht"].advice) == ("bad", True)


def test_of_clocks_the_one_that_differs_from_most_is_wrong() -> None:
    now, early = announcement(Span(0, 4)), announcement(Span(0, 4), issued_at=NOW + 90)
    assert judge_peer_clocks([now, now], NOW) == []
    (theirs,) = judge_peer_clocks([now, now, early], NOW)
    (ours,) = judge_peer_clocks([now, early, early], NOW)
    assert (theirs.state, ours.state) == ("poor", "bad")
    assert "90 s ahead" in ours.found


def test_a_deposit_must_pay_for_a_text() -> None:
    spans = [announcement(Span(0, 4), price=5)]
    assert judge_means(Nectar(20 * 256), spans, 4, 256) == []
    (short,) = judge_means(Nectar(20 * 256 - 1), spans, 4, 256)
    assert (short.state, short.found) == ("poor", "what is deposited pays for 255 tokens, of 256 a text may have")
    assert judge_means(Nectar(1), [replace(spans[0], price_per_token_block=0)], 4, 256) == []
    states = [judge_balance(Nectar(free), Nectar(held)).state for free, held in ((1, 0), (0, 1), (0, 0))]
    assert states == ["good", "poor", "bad"]


def test_disk_descriptors_and_threads_are_judged(tmp_path: Path) -> None:
    assert [judge_disk(free, tmp_path).state for free in (10**6, 10**9, 10**11)] == ["bad", "poor", "good"]
    limits = (1024, 4096, resource.RLIM_INFINITY)
    assert [judge_descriptors(limit).state for limit in limits] == ["poor", "good", "good"]
    assert "LimitNOFILE" in judge_descriptors(1024).advice
    assert [judge_threads(threads, 2).state for threads in (None, 2, 3)] == ["good", "good", "poor"]
    checks = [one.check for one in examine_machine(tmp_path / "not" / "there", threads=None)]
    assert checks == ["disk", "descriptors", "threads"]


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        found = examine_port("port", "127.0.0.1", taken.getsockname()[1], setting="port")
    assert (found.state, "set port" in found.advice) == ("bad", True)
    assert examine_port("port", "127.0.0.1", 0, setting="port").state == "good"
    assert examine_port("port", "203.0.113.1", 0, setting="port").state == "bad"


def test_a_stake_that_does_not_let_a_node_serve() -> None:
    about: dict[str, Any] = {"tokens": 5, "needed": 10}
    assert judge_stake(active=True, registered=True, **about).state == "good"
    assert judge_stake(active=False, registered=True, **about).state == "bad"
    assert judge_stake(active=False, registered=False, **about).state == "bad"
    assert judge_stake(active=False, registered=False, tokens=10, needed=10).state == "good"


def test_gas_and_clock_have_bounds() -> None:
    assert [judge_gas(n * TRANSACTION_GAS, 1, ME).state for n in (0, 1, 9, 10)] == ["bad", "poor", "poor", "good"]
    assert judge_clock(NOW, NOW - 10**6, idle_chain=True).state == "good"


@pytest.mark.parametrize("app", [node_app, validator_app], ids=["node", "validator"])
def test_every_actor_has_a_doctor(app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COROLLA_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["doctor", "--network=nowhere", "--json"])
    found = {row["check"]: row for row in json.loads(done.stdout)}
    assert done.exit_code == 1
    assert found["network"]["state"] == "bad"
    assert found["disk"]["state"] in ("good", "poor")
    assert "doctor" in VERBS


def test_what_is_well_needs_no_advice() -> None:
    shown = rows([Finding("a", "good", "x"), Finding("b", "bad", "y", "do z")])
    assert [row["advice"] for row in shown] == [None, "do z"]
