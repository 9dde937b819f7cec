"""Bodies of bounded size that come in bounded time, so that nobody fills the gateway's memory or waits in it."""

from __future__ import annotations

import asyncio
import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corolla.gateway.problem import Problem

MAX_BODY = 2**20
BODY_SECONDS = 30.0


class BoundedBody:
    """ASGI middleware that reads each body before anybody else does, and refuses what is too large or too slow."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(receive)
        except TimeoutError:
            await _refuse(send, Problem(408, f"the body took longer than {BODY_SECONDS:g} s", code="body_too_slow"))
            return
        except Problem as problem:
            await _refuse(send, problem)
            return
        if body is None:
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)


async def _read(receive: Receive) -> bytes | None:
    """None where the client is gone."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise Problem(413, f"the body has more than {MAX_BODY} bytes", code="body_too_large")
        if not message.get("more_body", False):
            return b"".join(parts)


async def _refuse(send: Send, problem: Problem) -> None:
    body = json.dumps(problem.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # the rest of the body is still on its way: this connection is of no more use
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
