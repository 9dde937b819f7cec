"""No request needs more than a question's worth of bytes: what says it has more, or does not say, is not read."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MOST_BYTES = 8192


class SmallRequests:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _small(Headers(scope=scope)):
            await PlainTextResponse("too large", status_code=413)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _small(headers: Headers) -> bool:
    length = headers.get("content-length", "0")
    return "transfer-encoding" not in headers and length.isdecimal() and int(length) <= MOST_BYTES
