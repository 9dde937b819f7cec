"""A Petals swarm on loopback: two servers with half of the blocks each, one thread each, and a client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.rivals.petals_setup import ensure
from benchmarks.rivals.rival import ROOT, Rival, RivalUnavailable, rival
from benchmarks.wan import FAR, NEAR, Wan, distant
from corolla.devnet.process import Child, tail
from corolla_core.protocol.span import Span

ENVIRONMENT = ROOT / "benchmarks" / "rivals" / ".venv"
_PREFIX = "smollm"
_PATIENCE = 120.0
_ADDRESS = re.compile(r"/ip4/127\.0\.0\.[12]/tcp/\d+/p2p/\w+")


@asynccontextmanager
async def petals(checkpoint: Path, spans: Sequence[Span], wan: Wan | None = None) -> AsyncIterator[Rival]:
    """A Petals client of servers with these spans, ready; across `wan` it reaches them, and they each other, by long
    lines only. Raises RivalUnavailable with the reason."""
    try:
        python = str(await asyncio.to_thread(ensure, ENVIRONMENT))
    except (subprocess.CalledProcessError, OSError) as error:
        raise RivalUnavailable(f"Petals cannot be installed: {error}") from None
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="corolla-petals-")))
        model = folder / "model"
        write_checkpoint(checkpoint, model)
        environ = {"HF_HUB_OFFLINE": "1", "PETALS_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
        ports = [_free_port() for _ in spans]
        if wan is not None:
            await stack.enter_async_context(distant(ports, wan, folder=folder))
        peers: list[str] = []
        for number, (span, port) in enumerate(zip(spans, ports, strict=True)):
            options = ["--initial_peers", peers[0]] if peers else ["--new_swarm"]
            options += [f"--host_maddrs=/ip4/{NEAR}/tcp/{port}"]
            options += [f"--announce_maddrs=/ip4/{NEAR if wan is None else FAR}/tcp/{port}"]
            command = [python, "-W", "ignore", "-m", "petals.cli.run_server", *_server(model, span), *options]
            shared = {**os.environ, "OMP_NUM_THREADS": "1", **environ}
            server = Child.start(f"petals-{number}", command, folder=folder, env=shared)
            stack.push_async_callback(server.stop, grace=5.0)
            peers.append(await _address(server))
        quiet = {"PYTHONWARNINGS": "ignore", "HIVEMIND_LOGLEVEL": "ERROR"}
        args = (str(model), peers[0], _PREFIX)
        yield await stack.enter_async_context(
            rival("benchmarks.rivals.petals_client", *args, python=python, environ={**environ, **quiet})
        )


def write_checkpoint(checkpoint: Path, folder: Path) -> None:
    """The same weights under a config as transformers 4 wrote it: a newer one's RoPE base would be passed over."""
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    config = json.loads((checkpoint / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))


def _server(model: Path, span: Span) -> list[str]:
    return [
        str(model),
        f"--block_indices={span.start}:{span.end}",
        f"--dht_prefix={_PREFIX}",
        "--no_auto_relay",
        "--device=cpu",
        "--torch_dtype=float32",
        "--throughput=1",
        "--balance_quality=0",
        "--num_handlers=1",
        "--attn_cache_tokens=4096",
    ]


def _free_port() -> int:
    with socket.create_server((NEAR, 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


async def _address(server: Child) -> str:
    """Where it listens, once it serves."""
    deadline = time.monotonic() + _PATIENCE
    while server.returncode is None and time.monotonic() < deadline:
        said = server.log.read_text(errors="replace")
        if "] Started" in said and (found := _ADDRESS.search(said)):
            return found.group()
        await asyncio.sleep(0.2)
    raise RivalUnavailable(f"{server.name} does not start:\n{tail(server.log)}")
