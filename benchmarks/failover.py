"""How long a sentence stops when a node is killed in the middle of it."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from benchmarks.record import Record, record
from benchmarks.swarm import passage, two_nodes
from corolla.client import AsyncClient
from corolla.devnet.devnet import Devnet
from corolla.devnet.node import DevnetNode
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import SamplingParams

_AFTER = 6
_TOKENS = 14


async def failovers(checkpoint: Path, *, contexts: tuple[int, ...] = (128, 1000), kills: int = 3) -> list[Record]:
    """The median stop, from `kill -9` to the next token, for sessions of some length; a standby is online."""
    tokenizer = open_checkpoint(str(checkpoint)).tokenizer()
    records = []
    async with two_nodes(checkpoint, standbys=True) as (devnet, client):
        for context in contexts:
            prompt = passage(context, lambda text: list(tokenizer(text).input_ids))
            stops = [await _stop(devnet, client, prompt) for _ in range(kills)]
            length = len(tokenizer(prompt).input_ids) + _AFTER
            records.append(record(f"stop of a session of {length} when its last node is killed", median(stops), "s"))
    return records


async def _stop(devnet: Devnet, client: AsyncClient, prompt: str) -> float:
    stream = client.stream(prompt, SamplingParams(max_tokens=_TOKENS))
    seen, killed, stop, before = 0, 0.0, 0.0, 0.0
    victim: DevnetNode | None = None
    async for piece in stream:
        now = time.perf_counter()
        if victim is not None:
            stop = max(stop, now - max(killed, before))
        seen += len(piece.token_ids)
        if seen == _AFTER:
            victim = _by_account(devnet, stream.route[-1].account)
            await victim.kill()
            killed = now
        before = now
    if stream.generation.usage.failovers != 1 or victim is None:
        raise SystemExit("the kill went unnoticed: nothing was measured")
    await victim.start()
    return stop


def _by_account(devnet: Devnet, account: str) -> DevnetNode:
    return next(node for node in devnet.all_nodes if node.account == account)
