"""A consortium's contract that tests can break, and a clock they move."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from corolla_core.protocol.errors import ChainUnreachable
from corolla_core.protocol.ids import Address


class FakeOperators:
    """The contract. `asked` are the calls that were made of it."""

    def __init__(self, *members: Address) -> None:
        self.members = set(members)
        self.down = False
        self.asked: list[list[Address]] = []

    async def attested(self, accounts: Sequence[Address]) -> list[bool]:
        await asyncio.sleep(0)
        self.asked.append(list(accounts))
        if self.down:
            raise ChainUnreachable("no endpoint")
        return [account in self.members for account in accounts]


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time
