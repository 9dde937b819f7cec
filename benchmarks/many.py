"""Four prompts one after another, at once over one route, and at once over two.

    python -m benchmarks.many [--prompts 4] [--tokens 32] [--rounds 3]

Both routes are one node with all blocks and one thread, so that a machine with two cores has one for each.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from benchmarks.record import Record, record, show
from corolla.client import AsyncClient
from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.values import Generation
from corolla_core.config import setup_logging
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.errors import CorollaError, PeerMisbehaved
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import ONE_NECTAR, Nectar

_COMMAND = "python -m benchmarks.many"
_BEGINNINGS = ("Once upon a time", "The bees of the valley", "In the year 1900", "Water boils when", "A short list of")
Way = Callable[[Sequence[str], SamplingParams], Awaitable[list[Generation | CorollaError]]]


@asynccontextmanager
async def client_of(devnet: Devnet, checkpoint: Path, *, without: str | None = None) -> AsyncIterator[AsyncClient]:
    """A client with a deposit, which leaves out the node `without`."""
    owner = await devnet.new_account(f"client-{without or 'both'}")
    async with AsyncClient(
        network=devnet.network, model=str(checkpoint), signer=owner.signer, home_dir=devnet.folder
    ) as client:
        await client.deposit(Nectar(100 * ONE_NECTAR))
        if without is not None:
            peers = client._joined.peers
            peers.shun(next(node.account for node in devnet.nodes if node.name == without), PeerMisbehaved("left out"))
        yield client


async def measure(*, prompts: int, tokens: int, rounds: int) -> list[Record]:
    checkpoint = prepare_smollm()
    whole = Span(0, open_checkpoint(str(checkpoint)).num_blocks)
    texts = [f"{_BEGINNINGS[number % len(_BEGINNINGS)]}, number {number}:" for number in range(prompts)]
    params = SamplingParams(max_tokens=tokens)
    speeds: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="corolla-many-") as home:
        async with (
            Devnet(DevnetPlan(model=str(checkpoint), spans=(whole, whole)), home=Path(home)) as devnet,
            client_of(devnet, checkpoint, without="node-1") as one,
            client_of(devnet, checkpoint) as both,
        ):

            async def in_turn(prompts: Sequence[str], params: SamplingParams) -> list[Generation | CorollaError]:
                return [await one.generate(prompt, params) for prompt in prompts]

            ways: dict[str, Way] = {
                "one after another": in_turn,
                "at once, one route": one.generate_many,
                "at once, two routes": both.generate_many,
            }
            expected: list[tuple[int, ...]] = []
            for number in range(rounds + 1):
                for name, way in ways.items():
                    began = time.perf_counter()
                    made = [each for each in await way(texts, params) if isinstance(each, Generation)]
                    seconds = time.perf_counter() - began
                    ids = [each.token_ids for each in made]
                    expected = expected or ids
                    if ids != expected:
                        raise SystemExit(f"{name}: other texts than one after another")
                    if number:  # the first round warms everything up
                        speeds[name].append(sum(map(len, ids)) / seconds)
            routes = {hop.account for each in made for hop in each.route}
            if len(routes) != len(devnet.nodes):
                raise SystemExit("the second route was not used: nothing was measured")
    baseline = median(speeds["one after another"])
    return [
        record(
            f"{prompts} prompts, {name}", median(found), "tok/s", baseline=baseline, command="python -m benchmarks.many"
        )
        for name, found in speeds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.many", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    setup_logging("error")
    disable_progress_bar()
    torch.set_num_threads(1)
    show(asyncio.run(measure(prompts=args.prompts, tokens=args.tokens, rounds=args.rounds)), Console(width=120))


if __name__ == "__main__":
    main()
