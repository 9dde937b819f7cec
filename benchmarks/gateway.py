"""Many streams at once through a gateway, over a swarm of paid nodes.

    python -m benchmarks.gateway [--streams 200] [--more 50] [--tokens 16]

A devnet, its nodes, the gateway and this customer are processes on this machine. `--more` requests beyond what the
gateway runs are to be turned away at once; none of the others may fail, or say anything but what it says alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import psutil
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from benchmarks.record import Record, record, show
from corolla.client import AsyncClient
from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.node import installed, node_environ
from corolla.devnet.process import Child
from corolla.devnet.split import split_evenly
from corolla_core.config import setup_logging
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.units import ONE_NECTAR, Nectar

_COMMAND = "python -m benchmarks.gateway"
_BEGINNINGS = ("Once upon a time", "The bees of the valley", "In the year 1900", "Water boils when", "A short list of")
_NODES = 2
_START_SECONDS = 120.0
_PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request ended. `status` 0 stands for a connection that failed; `first` are seconds to the first token."""

    status: int
    text: str
    tokens: int
    first: float | None
    wait: int
    why: str = ""

    @property
    def good(self) -> bool:
        return self.status == 200 and not self.why


@dataclass(frozen=True, slots=True)
class Found:
    """All answers of one round, how long it took, and the most open files of the gateway's process."""

    answers: Sequence[Answer]
    seconds: float
    files: int

    @property
    def shed(self) -> list[Answer]:
        return [each for each in self.answers if each.status == 429]

    @property
    def failed(self) -> list[Answer]:
        return [each for each in self.answers if not each.good and each.status != 429]


@asynccontextmanager
async def gateway(checkpoint: Path, *, streams: int) -> AsyncIterator[Child]:
    """A gateway that runs so many streams, on a devnet whose nodes let one client have as many sessions."""
    spans = split_evenly(open_checkpoint(str(checkpoint)).num_blocks, _NODES)
    room = {"max_sessions": streams + 8, "client_sessions": streams + 8, "client_share": 1.0, "kv_budget": "2GiB"}
    with tempfile.TemporaryDirectory(prefix="corolla-gateway-") as folder:
        home = Path(folder)
        async with Devnet(DevnetPlan(model=str(checkpoint), spans=spans, settings=room), home=home) as devnet:
            payer = devnet.client
            async with AsyncClient(network=devnet.network, signer=payer.signer, home_dir=home) as client:
                await client.deposit(Nectar(100 * ONE_NECTAR))
            command = [
                installed("corolla"), "gateway", f"--network={devnet.network_file}", f"--model={checkpoint}",
                f"--account={payer.keystore}", f"--password-file={devnet.password_file}", "--port=0", "--json",
                f"--streams={streams}", "--waiting=0",
            ]  # fmt: skip
            environ = {"COROLLA_HOME": str(home), "COROLLA_THREADS": "1", "COROLLA_SPECULATE": "off"}
            child = Child.start("gateway", command, folder=devnet.folder, env=node_environ({}) | environ)
            try:
                yield child
            finally:
                await child.stop(grace=30.0)


async def ask(url: str, model: str, prompt: str, *, tokens: int) -> Answer:
    """One streamed text."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    began, first, text, count = time.monotonic(), None, "", 0
    try:
        # A pool of its own for each: httpx looks through all connections of one at every request.
        async with (
            httpx.AsyncClient(timeout=_PATIENCE, verify=False, trust_env=False) as http,
            http.stream("POST", f"{url}/v1/completions", json=body) as response,
        ):
            if response.status_code != 200:
                told = json.loads(await response.aread())["error"]
                wait = int(response.headers.get("retry-after", 0))
                return Answer(response.status_code, "", 0, None, wait, f"{told['code']}: {told['message']}")
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    return Answer(200, text, count, first, 0, event["error"]["message"])
                first = time.monotonic() - began if first is None else first
                text += event["choices"][0]["text"]
                count += 1
    except httpx.HTTPError as error:
        return Answer(0, text, count, first, 0, type(error).__name__)
    return Answer(200, text, count, first, 0)


async def crowd(child: Child, url: str, model: str, *, requests: int, tokens: int) -> Found:
    """So many requests at the same moment."""
    files = 0

    async def watch() -> None:
        nonlocal files
        process = psutil.Process(child.pid)
        while True:
            files = max(files, process.num_fds())
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    prompts = [f"{_BEGINNINGS[number % len(_BEGINNINGS)]}, " for number in range(requests)]
    began = time.monotonic()
    answers = await asyncio.gather(*(ask(url, model, prompt, tokens=tokens) for prompt in prompts))
    seconds = time.monotonic() - began
    watching.cancel()
    return Found(answers, seconds, files)


async def measure(*, streams: int, more: int, tokens: int, out: Console) -> list[Record]:
    """Raises SystemExit when a request failed, or said something else than alone."""
    checkpoint = prepare_smollm()
    async with gateway(checkpoint, streams=streams) as child:
        ready = await child.wait_event("gateway", within=_START_SECONDS)
        url, model = ready["gateway"], ready["models"][0]
        alone = {prompt: (await ask(url, model, f"{prompt}, ", tokens=tokens)).text for prompt in _BEGINNINGS}
        found = await crowd(child, url, model, requests=streams + more, tokens=tokens)
    for why, times in Counter(f"{each.status} {each.why}" for each in found.failed).items():
        out.print(f"{times} × {why}", style="red", markup=False)
    others = {each.text for each in found.answers if each.good} - set(alone.values())
    if found.failed or others:
        raise SystemExit(f"{len(found.failed)} requests failed, {len(others)} other texts than alone")
    firsts = sorted(each.first for each in found.answers if each.first is not None)
    made = sum(each.tokens for each in found.answers)
    return [
        record(f"{streams + more} requests at once: answered without an error", len(firsts), "requests"),
        record("turned away with 429", len(found.shed), "requests"),
        record("failed", len(found.failed), "requests"),
        record("tokens, all streams together", made / found.seconds, "tok/s"),
        record("first token, median", median(firsts), "s"),
        record("first token, 99th of 100", firsts[int(0.99 * (len(firsts) - 1))], "s"),
        record("Retry-After, the longest", max((each.wait for each in found.shed), default=0), "s"),
        record("open files of the gateway, at most", found.files, "files"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=_COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--more", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=16)
    args = parser.parse_args()
    setup_logging("error")
    disable_progress_bar()
    found = asyncio.run(measure(streams=args.streams, more=args.more, tokens=args.tokens, out=Console(stderr=True)))
    show(found, Console(width=120), title=f"{args.streams} streams through a gateway")


if __name__ == "__main__":
    main()
