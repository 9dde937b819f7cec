"""A node killed every few tokens: how long the sentence stops, and where that time goes."""

from __future__ import annotations

import time
from collections.abc import MutableMapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from structlog.testing import capture_logs

from benchmarks.effort import Effort
from benchmarks.prompts import Prompt, Prompts
from benchmarks.record import Record, record
from benchmarks.swarm import NODES, swarm
from benchmarks.turns import Meaningless
from corolla.client import AsyncClient
from corolla.devnet.devnet import Devnet
from corolla.devnet.node import DevnetNode
from corolla.devnet.split import split_evenly
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import SamplingParams

_KILLS = 3
_EVERY = 8
_LOST, _FILLED, _WHOLE = "lost a node", "every block is served", "the chain is whole"
"""What the client logs."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Seconds from `kill -9` to the next token: until the client notices, until a substitute has opened the session,
    until it has the history, until the unfinished step is done again."""

    noticing: float
    opening: float
    replay: float
    redo: float

    @property
    def whole(self) -> float:
        return self.noticing + self.opening + self.replay + self.redo


async def kills(checkpoint: Path, effort: Effort, out: Console) -> list[Record]:
    """Sessions of some length whose last node is killed again and again, as many standbys being online."""
    prompts = Prompts.for_checkpoint(checkpoint)
    last = split_evenly(open_checkpoint(str(checkpoint)).num_blocks, NODES)[-1]
    records = []
    async with swarm(checkpoint, NODES, standbys=(last,) * _KILLS) as (devnet, client):
        for context in effort.contexts:
            prompt = prompts.passage(context, chapter=context)
            stops, victims = await interrupted(devnet, client, prompt)
            records += stopped(len(prompt.ids) + _EVERY * (_KILLS + 1) // 2, stops)
            for victim in victims:
                await victim.start()
    return records


def stopped(length: int, stops: Sequence[Stop]) -> list[Record]:
    """Medians, of the whole and of its parts."""
    name = f"stop of a session of some {length} positions, p50 of {len(stops)} kills"
    parts = [
        record(f"{name}: {field.name}", median(astuple(stop)[number] for stop in stops), "s")
        for number, field in enumerate(fields(Stop))
    ]
    whole, besides = median(stop.whole for stop in stops), median(stop.whole - stop.replay for stop in stops)
    return [record(name, whole, "s"), record(f"{name}: all but the replay", besides, "s"), *parts]


async def interrupted(devnet: Devnet, client: AsyncClient, prompt: Prompt) -> tuple[list[Stop], list[DevnetNode]]:
    """One sentence with a kill every few tokens. Raises Meaningless unless it reads as it does without any."""
    params = SamplingParams(max_tokens=_EVERY * (_KILLS + 1))
    expected = await client.generate(prompt.text, params)
    stops: list[Stop] = []
    victims: list[DevnetNode] = []
    with capture_logs(processors=[_stamp]) as logs:
        stream = client.stream(prompt.text, params)
        seen, killed = 0, 0.0
        async for piece in stream:
            seen += len(piece.token_ids)
            if len(stops) < len(victims) and (stop := timed(logs, killed, time.perf_counter())):
                stops.append(stop)
                logs.clear()
            if seen == _EVERY * (len(victims) + 1) and len(victims) < _KILLS:
                victims.append(_by_account(devnet, stream.route[-1].account))
                logs.clear()
                killed = time.perf_counter()
                await victims[-1].kill()
    if stream.generation.token_ids != expected.token_ids:
        raise Meaningless(f"{stream.generation.token_ids} with kills, {expected.token_ids} without")
    if len(stops) != _KILLS:
        raise Meaningless(f"{_KILLS} kills, {len(stops)} of them noticed")
    return stops, victims


def timed(logs: Sequence[MutableMapping[str, Any]], killed: float, now: float) -> Stop | None:
    """The stop that ends `now`, None while the client knows of none."""
    at = {entry["event"]: entry["at"] for entry in logs}
    if _WHOLE not in at:
        return None
    lost, filled, whole = at.get(_LOST, killed), at[_FILLED], at[_WHOLE]  # a send that fails is not told
    return Stop(lost - killed, filled - lost, whole - filled, now - whole)


def _stamp(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["at"] = time.perf_counter()
    return event


def _by_account(devnet: Devnet, account: str) -> DevnetNode:
    return next(node for node in devnet.all_nodes if node.account == account)
