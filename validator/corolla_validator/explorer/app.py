"""The explorer over HTTP: a page, JSON to read, and a stream that says what is new. Nothing can be changed by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from corolla_validator.explorer.headers import SecurityHeaders
from corolla_validator.explorer.models import (
    Ask,
    AuditView,
    ChallengeView,
    Coverage,
    DisputeView,
    EarningsView,
    NodeView,
    Overview,
    Page,
    PenaltyView,
    SessionView,
    View,
)
from corolla_validator.explorer.playground import Playground
from corolla_validator.explorer.seats import Seats
from corolla_validator.explorer.small import SmallRequests
from corolla_validator.explorer.watch import Watch

STATIC = Path(__file__).with_name("static")
SECONDS_BETWEEN_EVENTS = 0.5
RETRY_MS = 1000
MOST_ITEMS = 200
LOOPBACK_NAMES = ("127.0.0.1", "localhost")

Offset = Annotated[int, Query(ge=0)]
Limit = Annotated[int, Query(ge=1, le=MOST_ITEMS)]


def create_app(
    watch: Watch,
    playground: Playground | None = None,
    *,
    names: Sequence[str] = LOOPBACK_NAMES,
    seats: Seats | None = None,
) -> FastAPI:
    """`names` are the hosts it may be reached by: another name in a request is a page of somebody else's that had its
    name resolve to here."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(watch.run())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    app = FastAPI(
        title="Corolla explorer", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/api/openapi.json"
    )
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(names), www_redirect=False)
    app.add_middleware(SmallRequests)
    app.add_middleware(SecurityHeaders)
    _reads(app, watch)
    _events(app, watch, seats or Seats())
    if playground is not None:
        _playground(app, playground)
    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


def _reads(app: FastAPI, watch: Watch) -> None:
    @app.get("/healthz")
    async def healthz(response: Response) -> dict[str, bool]:
        """Whether anybody looks at the network; which of its sources answer is in the overview."""
        response.status_code = 200 if watch.running else 503
        return {"ok": watch.running}

    @app.get("/api/overview", response_model=Overview)
    async def overview(request: Request) -> Response:
        return _answer(request, watch, "overview", lambda: watch.overview)

    @app.get("/api/coverage", response_model=Coverage)
    async def coverage(request: Request) -> Response:
        return _answer(request, watch, "coverage", lambda: watch.coverage)

    @app.get("/api/nodes/{account}", response_model=NodeView)
    async def node(request: Request, account: str) -> Response:
        found = next(
            (one for one in watch.lists["nodes"] if isinstance(one, NodeView) and one.account == account), None
        )
        if found is None:
            raise HTTPException(404, "no such node")
        return _answer(request, watch, "nodes", lambda: found)

    def listed(name: str, kind: type[View], summary: str) -> None:
        async def page(request: Request, offset: Offset = 0, limit: Limit = 50) -> Response:
            def cut() -> Page[View]:
                rows = watch.lists[name]
                return Page(total=len(rows), offset=offset, items=rows[offset : offset + limit])

            return _answer(request, watch, name, cut)

        app.get(f"/api/{name}", response_model=Page[kind], name=name, summary=summary)(page)  # type: ignore[valid-type]

    listed("nodes", NodeView, "Nodes, by the blocks they serve")
    listed("sessions", SessionView, "Audited sessions, newest first")
    listed("audits", AuditView, "Audits, newest first")
    listed("disputes", DisputeView, "Disputes before juries, newest first")
    listed("penalties", PenaltyView, "Stake taken from nodes, newest first")
    listed("challenges", ChallengeView, "Rows demanded on chain, newest first")
    listed("earnings", EarningsView, "What redemptions brought each node, most first")


def _answer(request: Request, watch: Watch, topic: str, read: Callable[[], View]) -> Response:
    versions = watch.versions
    tag = f'"{versions.run}-{versions.topics[topic]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(read().model_dump_json(), media_type="application/json", headers=headers)


def _events(app: FastAPI, watch: Watch, seats: Seats) -> None:
    async def seat(request: Request) -> AsyncIterator[None]:
        who = request.client.host if request.client is not None else ""
        if not seats.take(who):
            raise HTTPException(503, "too many listen already", headers={"Retry-After": "10"})
        try:
            yield
        finally:
            seats.leave(who)

    @app.get("/api/events", response_class=EventSourceResponse, dependencies=[Depends(seat)])
    async def events() -> AsyncIterator[ServerSentEvent]:
        """Which version of each list is current: at once, and whenever that changes, twice a second at most."""
        told: Any = None
        while True:
            news = watch.news
            if watch.versions != told:
                told = watch.versions
                yield ServerSentEvent(event="versions", data=asdict(told), retry=RETRY_MS)
                await asyncio.sleep(SECONDS_BETWEEN_EVENTS)
            else:
                await news.wait()


def _playground(app: FastAPI, playground: Playground) -> None:
    async def turn(request: Request) -> AsyncIterator[None]:
        # It spends the operator's money: only for people on this page, not for other pages they have open.
        if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise HTTPException(403, "ask from the explorer's own page")
        if not playground.begin():
            raise HTTPException(429, "others are asking; try again soon", headers={"Retry-After": "5"})
        try:
            yield
        finally:
            playground.end()

    @app.post("/api/playground", response_class=EventSourceResponse, dependencies=[Depends(turn)])
    async def ask(question: Ask) -> AsyncIterator[ServerSentEvent]:
        """Text as it comes, with the route and what it has cost so far."""
        async for event in playground.ask(question.prompt):
            yield ServerSentEvent(event=event.name, data=event.data)
