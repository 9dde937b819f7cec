"""`deploy/compose.yaml` is true: its services come up and serve, as processes with the same command lines.

No container engine runs here. Each service's command and environment are taken from the file; only what containers
give (host names, ports of their own, the volume, the database server) is put in its place.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from compose import ours, services
from databases import fresh_postgres, postgres_server  # noqa: F401 -- a fixture

from corolla.devnet.ganache import free_port, ganache_cli, nodejs
from corolla.devnet.node import installed
from corolla.devnet.process import Child
from corolla_core.model.smollm import NAME, prepare_smollm

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(400)]


class Rehearsal:
    """The services of the file, each a process."""

    def __init__(self, folder: Path, postgres: str) -> None:
        self.home, self.logs = folder / "corolla", folder / "logs"
        self._postgres = postgres
        self._ports: dict[tuple[str, str], int] = {}
        self._stack = AsyncExitStack()
        self._databases: dict[str, str] = {}
        (self.home / "models").mkdir(parents=True)
        (self.home / "models" / NAME).symlink_to(prepare_smollm())

    def port(self, service: str, port: str) -> int:
        """Where a service's port is here."""
        return self._ports.setdefault((service, port), free_port())

    def argv(self, name: str) -> list[str]:
        if name == "ganache":
            return [nodejs(), str(ganache_cli()), *(self._here(name, word) for word in services()[name]["command"])]
        program, *rest = ours()[name]
        start = [sys.executable] if program == "python" else [installed(program)]
        return [*start, *(self._here(name, word) for word in rest)]

    def _here(self, name: str, word: str) -> str:
        """A word of a command line, without containers."""
        for service, port in (("ganache", "8545"), ("bootstrap", "31400")):
            word = word.replace(f"http://{service}:{port}", f"http://127.0.0.1:{self.port(service, port)}")
            word = word.replace(f"/dns4/{service}/tcp/{port}", f"/dns4/localhost/tcp/{self.port(service, port)}")
        word = word.replace("/corolla", str(self.home)) if "=/corolla" in word else word
        option, _, value = word.partition("=")
        if option == "--database.dbPath":
            return f"{option}={self.home.parent / 'chain'}"
        if option in ("--port", "--metrics-port", "--server.port"):
            return f"{option}={self.port(name, value)}"
        if value.startswith("/ip4/0.0.0.0/tcp/"):
            return f"{option}=/ip4/127.0.0.1/tcp/{self.port(name, value.rsplit('/', 1)[1])}"
        return f"{option}=127.0.0.1" if value in ("0.0.0.0", name) and option.endswith("host") else word

    def environ(self, name: str) -> dict[str, str]:
        given = services()[name].get("environment", {})
        found = {key: value for key, value in given.items() if key.startswith("COROLLA_") and "HOST" not in key}
        for key, value in found.items():
            if value.startswith("postgresql://"):
                database = value.rsplit("/", 1)[1]
                found[key] = self._databases.setdefault(database, fresh_postgres(self._postgres))
        shared = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "COROLLA_HOME": str(self.home)}
        return {**os.environ, **shared, **found}

    def start(self, name: str) -> Child:
        child = Child.start(name, self.argv(name), folder=self.logs, env=self.environ(name))
        self._stack.push_async_callback(child.stop, grace=30.0)
        return child

    async def finish(self, name: str) -> None:
        """A service that does its work and ends."""
        child = self.start(name)
        assert await child.wait(within=150) == 0, child.log.read_text()

    async def fetch(self, name: str, port: str, path: str, body: object = None) -> str:
        """What a service answers over HTTP."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port(name, port)}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        return await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=120).read().decode())

    async def metrics(self, name: str) -> dict[str, float]:
        page = await self.fetch(name, "9100", "/metrics")
        lines = [line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#")]
        return {series: float(value) for series, value in lines}

    async def stop(self) -> None:
        await self._stack.aclose()


@asynccontextmanager
async def rehearsal(folder: Path, postgres: str) -> AsyncIterator[Rehearsal]:
    made = Rehearsal(folder, postgres)
    try:
        yield made
    finally:
        await made.stop()


async def test_the_compose_files_services_serve_a_paid_and_audited_answer(
    tmp_path: Path,
    postgres_server: str,  # noqa: F811
) -> None:
    async with rehearsal(tmp_path, postgres_server) as stage:
        stage.start("ganache")
        await stage.finish("setup")
        await stage.start("bootstrap").wait_event("event", "ready", within=30)
        serving = {name: stage.start(name) for name in ("node-0", "node-1", "node-2")}
        await stage.finish("deposit")
        for node in serving.values():
            await node.wait_event("event", "ready", within=150)
        validator = stage.start("validator")
        await validator.wait_event("event", "ready", within=150)

        await stage.start("gateway").wait_event("gateway", within=60)
        asked = {"role": "user", "content": "What is the capital of France?"}
        body = {"model": NAME, "messages": [asked], "max_tokens": 20, "temperature": 0}
        answer = json.loads(await stage.fetch("gateway", "8000", "/v1/chat/completions", body))
        assert "Paris" in answer["choices"][0]["message"]["content"]
        assert "corolla_gateway_requests_total" in await stage.fetch("gateway", "8000", "/metrics")
        for name in serving:
            page = await stage.metrics(name)
            assert page['corolla_node_tokens_total{kind="decode"}'] > 5
            assert page["corolla_node_vouchers_total"] > 0
        await validator.wait_event("event", "audit", within=60)
        page = await stage.metrics("validator")
        assert page['corolla_validator_audits_total{outcome="passed"}'] >= 1

        # The chain is kept: to set it up again changes nothing.
        before = (stage.home / "networks/devnet.json").read_text()
        await stage.finish("setup")
        assert (stage.home / "networks/devnet.json").read_text() == before

        for node in serving.values():
            node.terminate()
        for node in serving.values():
            assert await node.wait(within=80) == 0
