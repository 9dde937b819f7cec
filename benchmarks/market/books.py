"""Where money is when nobody owns it, and the check that none appears or vanishes."""

from __future__ import annotations

from dataclasses import dataclass


class MoneyLost(AssertionError):
    """The accounts no longer add up to what they started with."""


@dataclass(slots=True)
class Books:
    """Nano-Nectar. `clients` pay fees, `outside` pays bribes (and may owe), `spent` is what computing cost."""

    clients: int = 10**15
    outside: int = 0
    pot: int = 2 * 10**9
    burned: int = 0
    spent: int = 0
    bonds: int = 0
    refunded: int = 0
    total: int = 0

    def held(self) -> int:
        return self.clients + self.outside + self.pot + self.burned + self.spent + self.bonds

    def check(self, others: int) -> None:
        """Raises MoneyLost unless these accounts and `others`, all that nodes and validators own, are the total."""
        if self.held() + others != self.total:
            raise MoneyLost(f"{self.held() + others - self.total} nano-Nectar out of {self.total}")
