"""What a request passes before it runs: whose it is, whether there is room, and whether its budget covers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from corolla.gateway.backend import Ask, Backend
from corolla.gateway.door import Door
from corolla.gateway.ledger import Bill, Ledger
from corolla_core.protocol.errors import InvalidInput, KeyRefused
from corolla_core.protocol.units import Nectar
from corolla_core.store.gateway_store import ApiKey

PRIVACY_HEADER = "X-Corolla-Privacy"
_SCHEME = "bearer "
_ANYONE = "anyone"


class Visit:
    """A request that may run, and its texts as they are to be asked for. Left when all of them have ended."""

    def __init__(self, asks: Sequence[Ask], bill: Bill | None, held: AsyncExitStack) -> None:
        self.asks = asks
        self._bill = bill
        self._held = held

    async def leave(self, cost: Nectar) -> None:
        """Charge the key and make room for the next. Raises StoreError; there is room all the same."""
        if self._bill is not None:
            self._bill.cost = cost
        await self._held.aclose()


class Gate:
    """The way in to `backend`. Without a `ledger` anyone may ask, and nobody is charged."""

    def __init__(self, backend: Backend, *, door: Door, ledger: Ledger | None = None) -> None:
        self._backend = backend
        self._door = door
        self._ledger = ledger

    async def authenticate(self, headers: Mapping[str, str]) -> ApiKey | None:
        """Whose request it is; None where there are no keys. Raises KeyRefused, StoreError."""
        if self._ledger is None:
            return None
        given = headers.get("authorization", "")
        if not given.lower().startswith(_SCHEME):
            raise KeyRefused("give an API key: Authorization: Bearer sk-corolla-…")
        return await self._ledger.authenticate(given[len(_SCHEME) :].strip())

    async def enter(self, headers: Mapping[str, str], asks: Sequence[Ask]) -> Visit:
        """Raises KeyRefused, InvalidInput, Overloaded, BudgetSpent, StoreError, and what the backend raises where it
        cannot say what the request may cost."""
        key = await self.authenticate(headers)
        private = wants_privacy(headers) or (key is not None and key.private)
        marked = [replace(ask, private=private) for ask in asks]
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._door.passed(_ANYONE if key is None else key.label, len(asks)))
            bill = None
            if key is not None and self._ledger is not None:
                most = Nectar(sum([await self._backend.most(ask) for ask in marked]))
                bill = await held.enter_async_context(self._ledger.billed(key, most))
            return Visit(marked, bill, held.pop_all())


def wants_privacy(headers: Mapping[str, str]) -> bool:
    """Whether a request says that it is private. A word that is not known is refused: it may have meant to say so."""
    said = headers.get(PRIVACY_HEADER.lower())
    if said is None or said.strip().lower() == "public":
        return False
    if said.strip().lower() == "private":
        return True
    raise InvalidInput(f"{PRIVACY_HEADER} is private or public")
