"""The gateway's HTTP: one application over one backend."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from corolla.gateway.backend import Ask, Backend
from corolla.gateway.body import BoundedBody
from corolla.gateway.choices import Choices, Item
from corolla.gateway.door import Door
from corolla.gateway.gate import Gate, Visit
from corolla.gateway.metrics import Counted, Metrics
from corolla.gateway.problem import Problem, problem_of, unavailable
from corolla.gateway.replies import ChatReply, CompletionReply, Reply
from corolla.gateway.requests import ChatRequest, CompletionRequest, refused
from corolla_core.protocol.errors import CorollaError, StoreError

_log = structlog.get_logger(__name__)
T = TypeVar("T")

#: Seconds that texts given up get to settle with their nodes when the gateway ends.
SETTLE_SECONDS = 10.0
ROUTE_HEADER = "X-Corolla-Route"
BACKEND_HEADER = "X-Corolla-Backend"


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """OpenAI's form of an error."""

    error: ErrorDetail


_CAN_FAIL: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply} for status in (400, 401, 402, 404, 405, 408, 413, 429, 500, 503)
}
_SSE: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


class Gateway:
    """Answers requests with the texts of `backend`."""

    def __init__(
        self,
        backend: Backend,
        *,
        gate: Gate,
        metrics: Metrics,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.backend = backend
        self.gate = gate
        self.metrics = metrics
        self._clock = clock
        self._now = now
        self.started = int(now())
        self._making: set[Choices] = set()

    def model(self, name: str) -> dict[str, Any]:
        """Raises Problem 404."""
        if name not in self.backend.models:
            raise Problem(404, f"there is no model {name!r} here", code="model_not_found", param="model")
        return {"id": name, "object": "model", "created": self.started, "owned_by": "corolla"}

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        asks = body.asks()
        reply = ChatReply(body, created=int(self._now()), choices=len(asks))
        return await self._answer(body, asks, reply, request)

    async def complete(self, body: CompletionRequest, request: Request) -> Response:
        asks = body.asks()
        reply = CompletionReply(body, created=int(self._now()), choices=len(asks))
        return await self._answer(body, asks, reply, request)

    async def close(self) -> None:
        """Give up what is still being made, and let it settle."""
        for choices in self._making:
            choices.give_up()
        if self._making:
            await asyncio.wait([choices.done for choices in self._making], timeout=SETTLE_SECONDS)

    async def _answer(
        self, body: ChatRequest | CompletionRequest, asks: Sequence[Ask], reply: Reply, request: Request
    ) -> Response:
        self.model(body.model)
        began = self._clock()
        visit = await unless_gone(request, self.gate.enter(request.headers, asks))
        choices = Choices(
            self.backend,
            visit.asks,
            per_prompt=body.n,
            clock=self._clock,
            ended=functools.partial(self._account_for, visit),
        )
        self._making.add(choices)
        self.metrics.running.inc()
        items = aiter(choices)
        try:
            # nothing is said before there is a token, so that what fails until then has a status of its own
            first: tuple[int, Item] = await unless_gone(request, anext(items))
            self.metrics.first_token.observe(self._clock() - began)
            if body.stream:
                events = self._events(choices, first, items, reply, with_usage=body.include_usage)
                return _Events(
                    events,
                    choices,
                    headers=_ran(choices) | {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
                )
            whole: dict[str, Any] = await unless_gone(request, self._whole(choices, first, items, reply))
            return JSONResponse(whole, headers=_ran(choices))
        except BaseException:
            choices.give_up()
            raise

    async def _whole(
        self, choices: Choices, first: tuple[int, Item], items: AsyncIterator[tuple[int, Item]], reply: Reply
    ) -> dict[str, Any]:
        reply.chunks(*first)
        async for item in items:
            reply.chunks(*item)
        return reply.whole(choices.spent, choices.route)

    async def _events(
        self,
        choices: Choices,
        first: tuple[int, Item],
        items: AsyncIterator[tuple[int, Item]],
        reply: Reply,
        *,
        with_usage: bool,
    ) -> AsyncIterator[str]:
        try:
            for chunk in [*reply.opening(), *reply.chunks(*first)]:
                yield _event(chunk)
            async for item in items:
                for chunk in reply.chunks(*item):
                    yield _event(chunk)
            if with_usage:
                yield _event(reply.last(choices.spent, choices.route))
            yield "data: [DONE]\n\n"
        except Exception as error:
            yield _event(_told(error).body())

    async def _account_for(self, visit: Visit, choices: Choices) -> None:
        self._making.discard(choices)
        self.metrics.running.dec()
        self.metrics.spent(choices.spent)
        if (seconds := choices.seconds_per_token) is not None:
            self.metrics.token.observe(seconds)
        try:
            await visit.leave(choices.spent.cost)
        except StoreError as error:
            _log.error("a request's cost was not charged", cost=choices.spent.cost, error=str(error))


def create_app(
    backend: Backend,
    *,
    gate: Gate | None = None,
    clock: Callable[[], float] = time.monotonic,
    now: Callable[[], float] = time.time,
) -> FastAPI:
    """The application. Without a `gate` of its own anyone may ask. `clock` measures, `now` is Unix time."""
    metrics = Metrics()
    gateway = Gateway(backend, gate=gate or Gate(backend, door=Door()), metrics=metrics, clock=clock, now=now)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await gateway.close()

    app = FastAPI(
        title="Corolla gateway",
        description="OpenAI's API over a Corolla network.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=_CAN_FAIL,
    )
    app.state.gateway = gateway
    app.add_middleware(BoundedBody)
    app.add_middleware(Counted, metrics=metrics)

    @app.get("/v1/models")
    async def list_models(request: Request) -> dict[str, Any]:
        await gateway.gate.authenticate(request.headers)
        return {"object": "list", "data": [gateway.model(name) for name in gateway.backend.models]}

    @app.get("/v1/models/{model:path}")
    async def get_model(model: str, request: Request) -> dict[str, Any]:
        await gateway.gate.authenticate(request.headers)
        return gateway.model(model)

    @app.post("/v1/chat/completions", response_model=None, responses=_SSE)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        return await gateway.chat(body, request)

    @app.post("/v1/completions", response_model=None, responses=_SSE)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await gateway.complete(body, request)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """Whether texts can be made: the chain, the directory of nodes and a full route are there."""
        if lacking := await gateway.backend.lacking():
            raise unavailable("; ".join(lacking), code="not_ready")
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        return _response(refused(list(error.errors())))

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> Response:
        headers = error.headers or {}
        return _response(Problem(error.status_code, str(error.detail), code="http_error", headers=headers))

    @app.exception_handler(ClientGone)
    async def gone(_request: Request, _error: ClientGone) -> Response:
        return Response(status_code=499)  # nginx's, for the count: nobody reads it

    @app.exception_handler(Problem)
    @app.exception_handler(CorollaError)
    @app.exception_handler(Exception)
    async def failed(_request: Request, error: Exception) -> Response:
        return _response(_told(error))

    return app


class _Events(StreamingResponse):
    """Server-sent events. However the answer ends, its texts end with it: also where it is cut off before it began."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], choices: Choices, *, headers: dict[str, str]) -> None:
        super().__init__(events, headers=headers)
        self._choices = choices

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._choices.give_up()


class ClientGone(Exception):
    """Whoever asked does not wait for the answer any more."""


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What `work` returns. Raises ClientGone, `work` cancelled, when the client disconnects first."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
            with suppress(BaseException):
                await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _told(error: BaseException) -> Problem:
    problem = problem_of(error)
    if problem.status >= 500:
        _log.error("a request failed", code=problem.code, exc_info=error if problem.status == 500 else None)
    return problem


def _ran(choices: Choices) -> dict[str, str]:
    return {ROUTE_HEADER: str(choices.route), BACKEND_HEADER: choices.route.backend}


def _response(problem: Problem) -> Response:
    return JSONResponse(problem.body(), status_code=problem.status, headers=problem.headers)


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
