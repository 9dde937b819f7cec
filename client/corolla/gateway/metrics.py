"""What Prometheus may know of the gateway."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corolla.values import Spent
from corolla_core.protocol.units import ONE_NECTAR

_FIRST = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
_EACH = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """One gateway's, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "corolla_gateway_requests", "answers, by status", ["endpoint", "status"], registry=self.registry
        )
        self.tokens = Counter("corolla_gateway_tokens", "tokens paid for", ["kind"], registry=self.registry)
        self.cost = Counter(
            "corolla_gateway_cost_nectar", "Nectar spent; rounded, for graphs and not for books", registry=self.registry
        )
        self.first_token = Histogram(
            "corolla_gateway_first_token_seconds",
            "from the request to its first token",
            registry=self.registry,
            buckets=_FIRST,
        )
        self.token = Histogram(
            "corolla_gateway_token_seconds",
            "mean time from one token of a request's texts to the next",
            registry=self.registry,
            buckets=_EACH,
        )
        self.running = Gauge("corolla_gateway_running_streams", "texts being made now", registry=self.registry)

    def spent(self, spent: Spent) -> None:
        self.tokens.labels("prompt").inc(spent.prompt_tokens - spent.cached_tokens)
        self.tokens.labels("completion").inc(spent.tokens)
        self.cost.inc(spent.cost / ONE_NECTAR)


class Counted:
    """ASGI middleware that counts answers by endpoint and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                # the route's template, not the path: whoever asks for many paths must not make as many series
                endpoint = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(endpoint, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting)
