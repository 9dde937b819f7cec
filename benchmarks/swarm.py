"""Two paid nodes on loopback against plain transformers: the same prompts, taking turns."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from benchmarks.plain import PlainModel
from benchmarks.record import Record, record
from corolla.client import AsyncClient
from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.node import DevnetNode
from corolla.devnet.split import split_evenly
from corolla.local import LocalModel
from corolla.speculation import OFF, Speculation
from corolla.values import Generation
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import Sampler, SamplingParams
from corolla_core.protocol.ids import ZERO_HASH, TrancheId
from corolla_core.protocol.pricing import DEFAULT_CHUNK_TOKENS
from corolla_core.protocol.units import ONE_NECTAR, Nectar
from corolla_core.protocol.voucher import Voucher
from corolla_core.store.client_store import ClientStore
from corolla_core.store.store import Store

NODES = 2
_PASSAGE = (
    "The corolla of a flower is the whorl of its petals. It is often brightly coloured, it draws bees and other "
    "insects to the nectar, and it falls when its work is done. Botanists count and compare petals because related "
    "plants share their number and their shape. "
)
STORY = "Once upon a time, in a garden behind an old mill, there lived a bee who"


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often, and how many tokens each time."""

    count: int
    tokens: int
    prefill: int


ROUNDS = Rounds(count=5, tokens=64, prefill=512)


def passage(tokens: int, encode: Callable[[str], list[int]]) -> str:
    """A text of just under `tokens` tokens."""
    text = _PASSAGE
    while len(encode(text + _PASSAGE)) <= tokens:
        text += _PASSAGE
    return text


@asynccontextmanager
async def two_nodes(checkpoint: Path, *, standbys: bool = False) -> AsyncIterator[tuple[Devnet, AsyncClient]]:
    """A devnet whose two nodes halve the model, and a client with a deposit, which guesses no tokens."""
    halves = split_evenly(open_checkpoint(str(checkpoint)).num_blocks, NODES)
    plan = DevnetPlan(model=str(checkpoint), spans=halves, standbys=halves if standbys else ())
    with tempfile.TemporaryDirectory(prefix="corolla-bench-") as folder:
        async with (
            Devnet(plan, home=Path(folder)) as devnet,
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


async def side_by_side(checkpoint: Path, plain: PlainModel, *, rounds: Rounds) -> list[Record]:
    """Speeds of both, and where a hop's time goes."""
    tokenizer = open_checkpoint(str(checkpoint)).tokenizer()

    def encode(text: str) -> list[int]:
        return list(tokenizer(text).input_ids)

    long = passage(rounds.prefill, encode)
    decode_plain, decode_swarm, prefill_plain, prefill_swarm = [], [], [], []
    async with two_nodes(checkpoint) as (devnet, client):
        for number in range(rounds.count + 1):
            base = await plain.run(encode(STORY), rounds.tokens)
            ours = await client.generate(STORY, SamplingParams(max_tokens=rounds.tokens))
            require_same(base.token_ids, ours)
            base_long = await plain.run(encode(long), 2)
            ours_long = await client.generate(long, SamplingParams(max_tokens=2))
            require_same(base_long.token_ids, ours_long)
            if number:  # the first round warms everything up
                decode_plain.append(base.decode / (rounds.tokens - 1))
                decode_swarm.append(1 / ours.usage.tokens_per_second)
                prefill_plain.append(base_long.prefill)
                prefill_swarm.append(ours_long.usage.first_token_seconds)
        timings = [decode_timings(node) for node in devnet.nodes]
        records = speeds(
            median(decode_swarm),
            median(decode_plain),
            prefill=(len(encode(long)), median(prefill_swarm), median(prefill_plain)),
        )
        ends = client_ends(checkpoint)
        promising = await voucher_seconds(devnet, devnet.folder / "bench.db")
    return records + split(median(decode_swarm), median(decode_plain), timings, ends=ends, promising=promising)


def speeds(swarm: float, plain: float, *, prefill: tuple[int, float, float]) -> list[Record]:
    tokens, prefill_swarm, prefill_plain = prefill
    return [
        record("decode, two nodes, one stream", 1 / swarm, "tok/s", baseline=1 / plain),
        record(f"prefill of {tokens}, two nodes", tokens / prefill_swarm, "tok/s", baseline=tokens / prefill_plain),
        record(f"first token after {tokens}, two nodes", prefill_swarm, "s", baseline=prefill_plain),
    ]


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
    from corolla.local import load_local

    local: LocalModel = load_local(str(checkpoint))
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


def require_same(expected: tuple[int, ...], got: Generation) -> None:
    """A benchmark of two things that do different work measures nothing."""
    if got.token_ids != expected:
        raise SystemExit(f"the swarm says {got.token_ids}, plain transformers {expected}")
