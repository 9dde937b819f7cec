"""The JSON-RPC endpoint of a chain, with deadlines: it answers, refuses, or is unreachable."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter
from web3 import AsyncHTTPProvider

from corolla_core.chain.abi import Abi, revert_reason
from corolla_core.chain.account import AccountState
from corolla_core.chain.network import Network
from corolla_core.protocol.errors import ChainError, ChainUnreachable, RpcRefused, TransactionReverted, WrongChain
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.units import UnixTime, Wei

log = structlog.get_logger(__name__)

#: JSON-RPC codes that say "later": resource unavailable, limit exceeded
_BUSY_CODES = frozenset({-32002, -32005})
_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,64}")
_REVERT = re.compile(r"revert(?:ed)?[:\s]*(.*)", re.IGNORECASE | re.DOTALL)


class Transport(Protocol):
    """One JSON-RPC round trip, as web3's providers do it."""

    async def make_request(self, method: Any, params: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the chain adapter sees it; tests pass their own."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)


class _Unanswered(Exception):
    """No answer this time; worth asking again."""


class Chain:
    """An endpoint known to serve the network's chain.

    Every request is retried, a try lasting at most `try_seconds`, until `deadline` seconds have passed:
    ChainUnreachable. Nothing here signs. Close it when done.
    """

    def __init__(
        self,
        network: Network,
        *,
        transport: Transport | None = None,
        try_seconds: float = 10.0,
        deadline: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        self.network = network
        self.clock = clock or Clock()
        self.deadline = deadline
        self._try_seconds = try_seconds
        self._transport = transport
        self._session: aiohttp.ClientSession | None = None
        self._accounts: dict[Address, AccountState] = {}
        self._executes_copies: bool | None = None

    @classmethod
    async def connect(
        cls,
        network: Network,
        *,
        transport: Transport | None = None,
        try_seconds: float = 10.0,
        deadline: float = 60.0,
        clock: Clock | None = None,
    ) -> Chain:
        """A chain whose id was checked. Raises ChainUnreachable, WrongChain."""
        chain = cls(network, transport=transport, try_seconds=try_seconds, deadline=deadline, clock=clock)
        try:
            found = hex_int(await chain.request("eth_chainId"))
            if found != network.chain_id:
                raise WrongChain(f"{network.rpc_url} is another chain", expected=network.chain_id, found=found)
        except BaseException:
            await chain.close()
            raise
        return chain

    async def __aenter__(self) -> Chain:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def chain_id(self) -> int:
        return self.network.chain_id

    def account_state(self, account: Address) -> AccountState:
        """The one nonce book of an account on this chain, shared by all its senders."""
        return self._accounts.setdefault(account, AccountState())

    async def request(self, method: str, *params: Any, deadline: float | None = None) -> Any:
        """The `result` of a call.

        Raises ChainUnreachable when the deadline passes without an answer, RpcRefused when the answer is an error,
        TransactionReverted when that error is a contract's.
        """
        limit = self.deadline if deadline is None else deadline
        end = self.clock.monotonic() + limit

        def late(state: RetryCallState) -> bool:
            return self.clock.monotonic() >= end

        retrying = AsyncRetrying(
            stop=late,
            wait=wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.1),
            retry=retry_if_exception_type(_Unanswered),
            sleep=self.clock.sleep,
            before_sleep=lambda state: log.debug("rpc.retry", method=method, attempt=state.attempt_number),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    return await self._once(method, params)
        except _Unanswered as error:
            raise ChainUnreachable(f"{self.network.rpc_url}: {method} unanswered for {limit:.0f} s: {error}") from None
        raise AssertionError("tenacity returns or raises")

    async def executes_copies(self) -> bool:
        """Whether this endpoint is Ganache, whose pool does not heed nonces: it executes the same signed transaction
        as often as it is given it, and every repricing of it too (seen with 7.9.2)."""
        if self._executes_copies is None:
            try:
                version = str(await self.request("web3_clientVersion"))
            except RpcRefused:
                version = ""
            self._executes_copies = version.startswith("Ganache")
        return self._executes_copies

    async def read(self, contract: Address, abi: Abi, function: str, *arguments: Any, block: str = "latest") -> Any:
        """What a view function returns: the value itself, or a tuple when it returns several.

        Raises ChainError when nothing is deployed there, TransactionReverted when it reverts.
        """
        call = {"to": contract, "data": "0x" + abi.encode(function, *arguments).hex()}
        answer = hex_bytes(await self.request("eth_call", call, block))
        if not answer:
            raise ChainError(f"there is no {abi.name} at {contract} on chain {self.chain_id}")
        values = abi.decode(function, answer)
        return values[0] if len(values) == 1 else values

    async def block_number(self) -> int:
        return hex_int(await self.request("eth_blockNumber"))

    async def block(self, number: int | str) -> dict[str, Any] | None:
        """A block's header with transaction hashes; None when the chain has none of that number."""
        found = await self.request("eth_getBlockByNumber", block_id(number), False)
        if found is not None and not isinstance(found, dict):
            raise ChainError(f"the endpoint sent {found!r:.60} for a block")
        return found

    async def now(self) -> UnixTime:
        """The time of the newest block, which is what contracts compare expiries with."""
        newest = await self.block("latest")
        if newest is None:
            raise ChainError("the chain has no block")
        return UnixTime(hex_int(newest.get("timestamp")))

    async def balance(self, account: Address) -> Wei:
        """What an account can pay gas with."""
        return Wei(hex_int(await self.request("eth_getBalance", account, "latest")))

    async def _once(self, method: str, params: tuple[Any, ...]) -> Any:
        try:
            async with asyncio.timeout(self._try_seconds):
                transport = self._transport or await self._open()
                reply = await transport.make_request(method, list(params))
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            raise _Unanswered(f"{type(error).__name__} {error}".strip()) from None
        except ValueError as error:  # a proxy's error page instead of JSON
            raise _Unanswered(f"not JSON: {error!s:.80}") from None
        if not isinstance(reply, dict):
            raise _Unanswered("not a JSON-RPC answer")
        error_part = reply.get("error")
        if error_part is not None:
            raise _refusal(error_part)
        if "result" not in reply:
            raise _Unanswered("neither result nor error")
        return reply["result"]

    async def _open(self) -> Transport:
        provider = AsyncHTTPProvider(self.network.rpc_url, exception_retry_configuration=None)
        if self._session is None:
            # web3's own session opens a connection a request; ours keeps it.
            self._session = aiohttp.ClientSession(read_bufsize=2**18, raise_for_status=True)
        await provider.cache_async_session(self._session)
        self._transport = provider
        return provider


def block_id(number: int | str) -> str:
    return hex(number) if isinstance(number, int) else number


def hex_int(text: Any) -> int:
    """The number an endpoint wrote as `0x…`. Raises ChainError."""
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise ChainError(f"the endpoint sent {text!r:.60} for a number")
    return int(text, 16)


def hex_bytes(text: Any) -> bytes:
    """Bytes of `0x…` text from an endpoint. Raises ChainError."""
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except (ValueError, AttributeError, TypeError):
        raise ChainError(f"the endpoint sent {text!r:.60} for bytes") from None


def hex_hash(text: Any) -> Hash32:
    raw = hex_bytes(text)
    if len(raw) != 32:
        raise ChainError(f"the endpoint sent {len(raw)} bytes for a hash")
    return Hash32(raw)


def _refusal(error: Any) -> Exception:
    if not isinstance(error, dict):
        return RpcRefused(str(error)[:200])
    message = str(error.get("message", ""))
    code = error.get("code") if isinstance(error.get("code"), int) else None
    revert = _revert_data(error.get("data"))
    if revert is not None or _REVERT.search(message):
        return TransactionReverted(reason=revert_reason(revert) if revert else _bare_reason(message))
    if code in _BUSY_CODES:
        return _Unanswered(message)
    return RpcRefused(message[:300], rpc_code=code)


def _revert_data(data: Any) -> bytes | None:
    """The revert's bytes: `data` itself (Geth, Anvil), or `data.result` (Ganache), or `data.data` (Hardhat)."""
    if isinstance(data, dict):
        data = data.get("result") or data.get("data")
    if not isinstance(data, str) or not data.startswith("0x"):
        return None
    try:
        return bytes.fromhex(data[2:])
    except ValueError:
        return None


def _bare_reason(message: str) -> str:
    said = _REVERT.search(message)
    return (said[1][:200] if said else "") or "reverted without a reason"
