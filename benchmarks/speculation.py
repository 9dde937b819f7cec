"""`python -m benchmarks.speculation`: two paid nodes far away, with guessed tokens and without, taking turns.

Three texts: a summary that repeats its prompt's sentences, one that repeats phrases of it, and words drawn so hot that
nothing repeats and what is looked up is wrong. A run in which speculation changes what is said is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from benchmarks.record import Record, record, save, show
from benchmarks.wan import Wan, far_devnet
from corolla.client import AsyncClient
from corolla.devnet.devnet import DevnetPlan
from corolla.devnet.split import split_evenly
from corolla.speculation import AUTO, OFF, Speculation
from corolla.values import ChatMessage, Generation, Usage
from corolla_core.config import setup_logging
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.units import ONE_NECTAR, Nectar

RESULTS = Path(__file__).with_name("speculation.json")
NODES = 2
TOKENS = 56
_COMMAND = "python -m benchmarks.speculation"
_TEXT = (
    "The corolla of a flower is the whorl of its petals. It is often brightly coloured, it draws bees and other "
    "insects to the nectar, and it falls when its work is done. Botanists count and compare petals because related "
    "plants share their number and their shape. The sepals below protect the bud while it is closed; together the two "
    "whorls are called the perianth. In some flowers, such as tulips, petals and sepals look alike, and botanists then "
    "speak of tepals."
)
_EXTRACT = "Extract the key sentences:"
_OWN_WORDS = "Summarize this text in two sentences, in its own words. Do not add anything."
_UNRELATED = "Write words that have nothing to do with each other."


@dataclass(frozen=True, slots=True)
class Task:
    prompt: list[ChatMessage]
    params: SamplingParams


def _ask(text: str, *, temperature: float = 0.0) -> Task:
    return Task([{"role": "user", "content": text}], SamplingParams(max_tokens=TOKENS, temperature=temperature, seed=1))


TASKS: Mapping[str, Task] = {
    "summary in the text's sentences": _ask(f"{_EXTRACT}\n\n{_TEXT}"),
    "summary in its own words": _ask(f"{_OWN_WORDS}\n\n{_TEXT}"),
    "unrelated words": _ask(_UNRELATED, temperature=1.5),
}


async def compare(checkpoint: Path, wan: Wan, *, rounds: int) -> list[Record]:
    """Decoding speeds with speculation against those without, at the same nodes, one after the other."""
    spans = split_evenly(open_checkpoint(str(checkpoint)).num_blocks, NODES)
    plan = DevnetPlan(model=str(checkpoint), spans=spans)
    records: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="corolla-spec-") as folder:
        async with (
            far_devnet(plan, wan, home=Path(folder)) as devnet,
            AsyncClient(
                network=devnet.network, model=str(checkpoint), signer=devnet.client.signer, home_dir=devnet.folder
            ) as client,
        ):
            await client.deposit(Nectar(100 * ONE_NECTAR))
            for name, task in TASKS.items():
                records += await _turns(client, f"{name}, {wan}", task, rounds=rounds)
    return records


async def _turns(client: AsyncClient, name: str, task: Task, *, rounds: int) -> list[Record]:
    without: list[Usage] = []
    guessing: list[Usage] = []
    for number in range(rounds + 1):
        made: dict[str, Generation] = {}
        for by in (OFF, AUTO) if number % 2 else (AUTO, OFF):
            made[by] = await client.generate(task.prompt, task.params, speculation=Speculation(by))
        if made[OFF].token_ids != made[AUTO].token_ids:
            raise SystemExit(f"{name}: speculation says {made[AUTO].token_ids}, without it {made[OFF].token_ids}")
        if number:  # the first round warms everything up
            without.append(made[OFF].usage)
            guessing.append(made[AUTO].usage)
    drafted, accepted = sum(usage.drafted for usage in guessing), sum(usage.accepted for usage in guessing)
    speeds = [median(usage.tokens_per_second for usage in usages) for usages in (guessing, without)]
    pairs = [a.tokens_per_second / b.tokens_per_second for a, b in zip(guessing, without, strict=True)]
    costs = [median(usage.cost for usage in usages) / ONE_NECTAR for usages in (guessing, without)]
    return [
        record(f"{name}: decode with speculation", speeds[0], "tok/s", baseline=speeds[1], command=_COMMAND),
        record(f"{name}: worst pair of runs, with / without", min(pairs), "ratio", command=_COMMAND),
        record(f"{name}: cost", costs[0], "NECT", baseline=costs[1], command=_COMMAND),
        record(f"{name}: guesses a token", drafted / len(guessing) / guessing[0].tokens, "guesses", command=_COMMAND),
        record(f"{name}: guesses that were right", 100 * accepted / max(1, drafted), "%", command=_COMMAND),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speculation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rtt", type=float, default=0.05, help="seconds between any two peers")
    args = parser.parse_args()
    setup_logging("error")
    disable_progress_bar()
    torch.set_num_threads(1)
    records = asyncio.run(compare(prepare_smollm(), Wan(args.rtt), rounds=args.rounds))
    save(records, RESULTS)
    show(records, Console())


if __name__ == "__main__":
    main()
