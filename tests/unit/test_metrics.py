"""What node and validator show to Prometheus, and that it is theirs alone to say."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections.abc import Iterable
from typing import Any

import pytest
from node_peers import FakeClient, World, inputs, running_node
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from corolla_core.config.metrics import serve_metrics
from corolla_core.protocol.errors import NetworkError, OutOfCapacity
from corolla_core.protocol.span import Span
from corolla_core.swarm.messages import Close, Closed
from corolla_node.metrics import StatusCollector
from corolla_validator.metrics import ValidatorMetrics

pytestmark = pytest.mark.anyio

STATUS: dict[str, Any] = {
    "online": True,
    "sessions": 3,
    "queued": 1,
    "kv_total": 100,
    "kv_reserved": 40,
    "prefix_bytes": 7,
    "held": str(10**19),
    "redeemed": "12",
    "price": 5,
    "throughput": 1.5,
    "moves": 0,
    "positions_reused": 7,
    "challenges_pending": 2,
    "challenges_answered": 4,
    "challenges_missed": 1,
    "row_bytes_lost": 9,
    "peers_in": 2,
    "peers_out": 1,
    "timings": {"decode": {"median_ms": {"compute": 1.5}}, "prefill": {"median_ms": {}}},
}


async def scraped(collectors: Iterable[Collector]) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample of a scrape: name, then its labels' values."""
    port, stop = serve_metrics(collectors, port=0)
    try:
        page = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read())
    finally:
        await asyncio.to_thread(stop)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


async def test_a_node_shows_its_status() -> None:
    page = await scraped([StatusCollector(lambda: STATUS)])
    assert page["corolla_node_online"] == {(): 1.0}
    assert page["corolla_node_peers"] == {("peer",): 2.0, ("node",): 1.0}
    assert page["corolla_node_kv_reserved_bytes"] == {(): 40.0}
    assert page["corolla_node_vouchers_held_nectar_base_units"] == {(): 1e19}
    assert page["corolla_node_vouchers_redeemed_nectar_base_units_total"] == {(): 12.0}
    assert page["corolla_node_challenges_missed_total"] == {(): 1.0}
    assert page["corolla_node_step_milliseconds"] == {("decode", "compute"): 1.5}
    assert "process_open_fds" in page


async def test_a_node_counts_steps_receipts_payments_and_refusals() -> None:
    world = World()
    async with running_node(world, "node", Span(0, 2)) as node:
        client = FakeClient(world, [node])
        await client.open()
        client.pay(1000)
        client.pipes[0].send(client.open_message(0))  # an id that is taken
        await client.expect_fault()
        client.step(1, 0, inputs(3))
        await client.result()
        client.step(2, 3, inputs(1))
        await client.result()
        client.pipes[0].send(Close(client.session))
        await client.expect(Closed)
        page = await scraped([node.desk.metrics])
    assert page["corolla_node_tokens_total"] == {("prefill",): 3.0, ("decode",): 1.0}
    assert page["corolla_node_pass_seconds_count"] == {("prefill",): 1.0, ("decode",): 1.0}
    assert page["corolla_node_pass_rows_sum"] == {("prefill",): 3.0, ("decode",): 1.0}
    assert page["corolla_node_queue_seconds_count"] == {("prefill",): 1.0, ("decode",): 1.0}
    assert page["corolla_node_receipts_total"][()] >= 2
    assert page["corolla_node_receipted_positions_total"] == {(): 4.0}
    assert page["corolla_node_vouchers_total"][()] >= 1
    assert page["corolla_node_refused_total"] == {("InvalidInput",): 1.0}


async def test_a_taken_metrics_port_is_a_typed_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(NetworkError, match="cannot serve metrics"):
            serve_metrics([], port=taken.getsockname()[1])


class FakeAudits:
    online = 4

    def __init__(self) -> None:
        self.backlog = [70.0, 90.0]

    async def round(self) -> None:
        await asyncio.sleep(0)


async def test_a_validator_counts_what_it_tells_of() -> None:
    now = [100.0]
    metrics = ValidatorMetrics(lambda: now[0])
    told: list[dict[str, object]] = []
    tell = metrics.counting(told.append)
    events: list[dict[str, object]] = [
        {"event": "ready"},
        {"event": "audit", "outcome": "passed"},
        {"event": "audit", "outcome": "passed"},
        {"event": "audit", "outcome": "failed"},
        {"event": "withheld", "node": "0x"},
        {"event": "fault", "fault": "equivocation"},
        {"event": "proven", "fault": "equivocation"},
        {"event": "accused", "dispute": 1},
        {"event": "vote", "vote": "faulty"},
        {"event": "verdict", "outcome": "faulty"},
        {"event": "probe", "outcome": "answered"},
        {"event": "possession", "outcome": "held"},
        {"event": "trouble", "error": OutOfCapacity("no", needed=1, free=0).code},
        {"event": "scores revealed"},
        {"event": "scores settled"},
        {"event": "challenged"},
        {"event": "punished"},
    ]
    for event in events:
        tell(event)
    assert told == events
    await metrics.round_of(FakeAudits())()
    now[0] = 105.0
    page = await scraped([metrics])
    assert page["corolla_validator_audits_total"] == {("passed",): 2.0, ("failed",): 1.0}
    for name in ("withheld", "disputes"):
        assert page[f"corolla_validator_{name}_total"] == {(): 1.0}
    assert page["corolla_validator_votes_total"] == {("faulty",): 1.0}
    assert page["corolla_validator_verdicts_total"] == {("faulty",): 1.0}
    assert page["corolla_validator_probes_total"] == {("answered",): 1.0}
    assert page["corolla_validator_possessions_total"] == {("held",): 1.0}
    assert page["corolla_validator_faults_total"] == page["corolla_validator_proven_total"] == {("equivocation",): 1.0}
    assert page["corolla_validator_trouble_total"] == {("OutOfCapacity",): 1.0}
    assert page["corolla_validator_scores_total"] == {("revealed",): 1.0, ("settled",): 1.0}
    assert page["corolla_validator_openings_demanded_total"] == {("challenged",): 1.0, ("punished",): 1.0}
    assert page["corolla_validator_lag_seconds"] == {(): 5.0}
    assert page["corolla_validator_waiting_audits"] == {(): 2.0}
    assert page["corolla_validator_oldest_waiting_seconds"] == {(): 35.0}
    assert page["corolla_validator_nodes_online"] == {(): 4.0}
