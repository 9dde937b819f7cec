"""A swarm of paid nodes on loopback, and where the time of its hops goes."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from benchmarks.record import Record, record
from benchmarks.wan import Wan, far_devnet
from corolla.client import AsyncClient
from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.node import DevnetNode
from corolla.devnet.split import split_evenly
from corolla.local import load_local
from corolla.speculation import OFF, Speculation
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import Sampler, SamplingParams
from corolla_core.protocol.ids import ZERO_HASH, TrancheId
from corolla_core.protocol.pricing import DEFAULT_CHUNK_TOKENS
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import ONE_NECTAR, Nectar
from corolla_core.protocol.voucher import Voucher
from corolla_core.store.client_store import ClientStore
from corolla_core.store.store import Store

NODES = 2


@asynccontextmanager
async def swarm(
    checkpoint: Path, nodes: int, *, standbys: tuple[Span, ...] = (), wan: Wan | None = None
) -> AsyncIterator[tuple[Devnet, AsyncClient]]:
    """A devnet whose nodes share the model's blocks evenly, all of it across `wan`, and a client with a deposit."""
    spans = split_evenly(open_checkpoint(str(checkpoint)).num_blocks, nodes)
    plan = DevnetPlan(model=str(checkpoint), spans=spans, standbys=standbys)
    with tempfile.TemporaryDirectory(prefix="corolla-bench-") as folder:
        home = Path(folder)
        async with (
            Devnet(plan, home=home) if wan is None else far_devnet(plan, wan, home=home) as devnet,
            AsyncClient(
                network=devnet.network,
                model=str(checkpoint),
                signer=devnet.client.signer,
                home_dir=devnet.folder,
                speculation=Speculation(OFF),
            ) as client,
        ):
            await client.deposit(Nectar(100 * ONE_NECTAR))
            yield devnet, client


def split(
    swarm: float, plain: float, timings: list[dict[str, float]], *, ends: float, promising: float
) -> list[Record]:
    """Seconds a token in, milliseconds a hop out."""

    def of(*parts: str) -> float:
        return fmean(sum(node[part] for part in parts) for node in timings)

    inside = sum(node["compute"] + node["overhead"] for node in timings) / 1e3
    links = NODES + 1
    network = max(0.0, swarm - inside - ends) / links * 1e3
    paying = of("pay") + of("voucher") / DEFAULT_CHUNK_TOKENS
    share = NODES * (paying / 1e3 + promising / DEFAULT_CHUNK_TOKENS) / swarm
    receipting = of("receipt")
    return [
        record("overhead a hop, all in: (swarm - plain) / hops", (swarm - plain) / NODES * 1e3, "ms"),
        record("a hop: compute", of("compute"), "ms", baseline=plain / NODES * 1e3),
        record("a hop: serialization", of("decode", "encode"), "ms"),
        record("a hop: waiting for the compute thread and hand-over", of("queue", "deliver", "send"), "ms"),
        record("a hop: payment check and voucher, spread over its chunk", paying, "ms"),
        record("a hop: receipt, signed and its rows kept, spread over its chunk", receipting, "ms"),
        record("receipts' share of the time a token", NODES * receipting / 1e3 / swarm * 100, "%"),
        record("a link: network and event loops, by difference", network, "ms"),
        record("client's own ends a token: embedding, head, sampling", ends * 1e3, "ms"),
        record("client: one voucher, signed and on disk", promising * 1e3, "ms"),
        record("payment's share of the time a token", share * 100, "%"),
    ]


def decode_timings(node: DevnetNode) -> dict[str, float]:
    """A node's median milliseconds of each part of a one-token step, of taking in one voucher, and of processor time
    for the receipt of a position."""
    status: dict[str, Any] = json.loads((node.home / "node" / "status.json").read_text())
    timings = status["timings"]
    medians: dict[str, float] = dict(timings["decode"]["median_ms"])
    medians["voucher"] = 1e3 * timings["voucher_seconds"] / max(1, timings["vouchers"])
    medians["receipt"] = 1e3 * timings["receipt_seconds"] / max(1, timings["receipted"])
    return medians


def client_ends(checkpoint: Path, *, steps: int = 40) -> float:
    """Median seconds a token that the client computes itself."""
    local = load_local(str(checkpoint))
    sampler = Sampler(SamplingParams(max_tokens=steps), [1])
    hidden = torch.rand(1, 1, local.hidden_size)
    taken = []
    for position in range(steps):
        began = time.perf_counter()
        token = sampler.pick(local.logits(hidden)[0])
        local.embed([[token]], position)
        taken.append(time.perf_counter() - began)
    local.close()
    return median(taken)


async def voucher_seconds(devnet: Devnet, path: Path, *, count: int = 60) -> float:
    """Median seconds that it takes a client to promise more: on disk first, then signed."""
    signer, taken = devnet.client.signer, []
    async with Store.open(path) as store:
        book = ClientStore(store)
        payee = devnet.nodes[0].account
        for amount in range(1, count + 1):
            began = time.perf_counter()
            await store.run(book.raise_signed_total, TrancheId(bytes(32)), payee, Nectar(amount))
            Voucher(TrancheId(bytes(32)), payee, Nectar(amount), ZERO_HASH).sign(devnet.network.domain, signer)
            taken.append(time.perf_counter() - began)
    return median(taken)
