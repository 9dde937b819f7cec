"""What goes wrong, as OpenAI's API says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corolla_core.protocol.errors import (
    BudgetSpent,
    ChainError,
    ContextExceeded,
    CorollaError,
    InsufficientFunds,
    InvalidInput,
    KeyRefused,
    NetworkError,
    NoRoute,
    OutOfCapacity,
    Overloaded,
    PaymentError,
    ServingError,
    SpendingLimitExceeded,
    StoreError,
    UnsupportedModel,
    UpstreamRefused,
)

#: Seconds after which it is worth trying again what lacked nodes, a chain or a database: a node that left is replaced,
#: and one that failed is tried again, after about as long.
RETRY_AFTER = 20


class Problem(Exception):
    """A request that is refused, or failed. `headers` go with the answer."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        kind: str = "invalid_request_error",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.kind = kind
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def unavailable(message: str, *, code: str) -> Problem:
    """503, worth trying again."""
    return Problem(503, message, code=code, kind="service_unavailable", headers={"Retry-After": str(RETRY_AFTER)})


def busy(message: str, *, retry_after: int) -> Problem:
    """429: there is more to do than can be done now."""
    headers = {"Retry-After": str(retry_after)}
    return Problem(429, message, code="rate_limit_exceeded", kind="rate_limit_error", headers=headers)


def problem_of(error: BaseException) -> Problem:
    """How any failure is told. What is not on purpose is told without its details: they are for the log."""
    match error:
        case Problem():
            return error
        case ContextExceeded():
            return Problem(400, str(error), code="context_length_exceeded")
        case KeyRefused():
            headers = {"WWW-Authenticate": "Bearer"}
            return Problem(401, str(error), code="invalid_api_key", headers=headers)
        case Overloaded():
            return busy(str(error), retry_after=error.retry_after)
        case BudgetSpent():
            return Problem(402, str(error), code="insufficient_quota", kind="insufficient_quota")
        case UpstreamRefused(status=429):
            return busy(error.message, retry_after=error.retry_after or RETRY_AFTER)
        case UpstreamRefused(status=400 | 413 | 422):
            return Problem(error.status, error.message, code="refused_upstream")
        case InvalidInput() | UnsupportedModel():
            return Problem(400, str(error), code=error.code)
        case InsufficientFunds() | SpendingLimitExceeded():
            return Problem(402, str(error), code=error.code, kind="insufficient_quota")
        case NoRoute():
            return unavailable(str(error), code="no_route")
        case OutOfCapacity() | NetworkError() | ServingError() | PaymentError() | ChainError() | StoreError():
            return unavailable(str(error), code=error.code)
        case CorollaError():
            return Problem(500, str(error), code=error.code, kind="server_error")
        case _:
            return Problem(500, "the gateway failed; its log says how", code="internal_error", kind="server_error")
