"""The gateway as a server: on a real port, read by a real client, told to stop by a real signal."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Any

import pytest
from openai import AsyncOpenAI
from scripted_backend import MODEL, Script, ScriptedBackend

from corolla.gateway.app import create_app
from corolla.gateway.serve import serve
from corolla_core.protocol.errors import ConfigError

pytestmark = pytest.mark.anyio
ASKED: list[Any] = [{"role": "user", "content": "Hi"}]


class Served:
    """A gateway in this process's event loop."""

    def __init__(self, backend: ScriptedBackend, *, drain: float) -> None:
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.url = url
        self.task = asyncio.create_task(
            serve(create_app(backend), host="127.0.0.1", port=0, drain_timeout=drain, on_ready=url.set_result)
        )

    async def client(self) -> AsyncOpenAI:
        return AsyncOpenAI(api_key="none", base_url=f"{await self.url}/v1", max_retries=0)


async def test_a_running_stream_ends_before_the_server_does() -> None:
    gate = asyncio.Semaphore(0)
    backend = ScriptedBackend(Script(["one ", "two ", "three"], gate=gate))
    served = Served(backend, drain=30)
    async with await served.client() as client:
        stream = aiter(await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True))
        seen = [(await anext(stream)).choices[0].delta.content for _ in range(2)]
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert not served.task.done()
        gate.release()
        gate.release()
        seen += [chunk.choices[0].delta.content async for chunk in stream]
    assert "".join(text or "" for text in seen) == "one two three"
    async with asyncio.timeout(10):
        await served.task
    assert backend.started[0].closed


async def test_a_stream_that_does_not_end_in_time_is_given_up() -> None:
    backend = ScriptedBackend(Script(["one ", "never"], gate=asyncio.Semaphore(0)))
    served = Served(backend, drain=1)
    async with await served.client() as client:
        stream = aiter(await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True))
        await anext(stream)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(10):
            await served.task
    assert backend.started[0].closed


async def test_a_client_that_hangs_up_ends_its_text() -> None:
    backend = ScriptedBackend(Script(["one ", "never"], gate=asyncio.Semaphore(0)))
    served = Served(backend, drain=1)
    async with await served.client() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        await anext(aiter(stream))
        await stream.close()
        async with asyncio.timeout(5):
            while not backend.started[0].closed:  # noqa: ASYNC110 -- seen only from here
                await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        await served.task


async def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f":{port}"):
            await serve(
                create_app(ScriptedBackend()), host="127.0.0.1", port=port, drain_timeout=1, on_ready=lambda _url: None
            )
