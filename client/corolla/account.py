"""The arithmetic of paying one payee out of one tranche: pure numbers, all of them Nectar base units.

Work is `reserved` when a session begins, becomes `ordered` step by step, and is promised (`signed`) by cumulative
vouchers. Always: signed never falls, a new signature never exceeds what was ordered, ordered + reserved ≤ cap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from corolla_core.protocol.errors import InvalidInput, VoucherOverCap
from corolla_core.protocol.units import Nectar

NOTHING = Nectar(0)


@dataclass(frozen=True, slots=True)
class PayeeAccount:
    """`floor` is what had been signed when this client started: it is spent already, and counts as ordered."""

    cap: Nectar
    floor: Nectar = NOTHING
    ordered: Nectar = NOTHING
    signed: Nectar = NOTHING
    reserved: Nectar = NOTHING

    @classmethod
    def resumed(cls, cap: Nectar, signed: Nectar) -> PayeeAccount:
        """An account whose vouchers so far promise `signed`."""
        return cls(cap=cap, floor=signed, ordered=signed, signed=signed)

    @property
    def unpaid(self) -> Nectar:
        """Ordered, not promised yet."""
        return Nectar(max(0, self.ordered - self.signed))

    @property
    def free(self) -> Nectar:
        """What another session may still reserve."""
        return Nectar(max(0, self.cap - max(self.ordered, self.signed) - self.reserved))

    @property
    def committed(self) -> Nectar:
        """What this client has spent on this payee since it started, or is about to sign."""
        return Nectar(max(self.ordered, self.signed) - self.floor)


def reserve(account: PayeeAccount, need: int) -> PayeeAccount:
    """Set aside `need` for a session. Raises VoucherOverCap when the leaf cannot carry it."""
    if need < 0:
        raise InvalidInput("a reservation is not negative")
    if need > account.free:
        offered = max(account.ordered, account.signed) + account.reserved + need
        raise VoucherOverCap("more than this payee's leaf allows", cap=account.cap, offered=offered)
    return replace(account, reserved=Nectar(account.reserved + need))


def release(account: PayeeAccount, unused: int) -> PayeeAccount:
    """Give back what a session reserved and did not order."""
    if not 0 <= unused <= account.reserved:
        raise InvalidInput(f"{unused} was not reserved")
    return replace(account, reserved=Nectar(account.reserved - unused))


def order(account: PayeeAccount, cost: int, *, reserved: int) -> PayeeAccount:
    """Order work of `cost`, `reserved` of it out of the session's reservation. Raises VoucherOverCap."""
    if not 0 <= reserved <= min(cost, account.reserved):
        raise InvalidInput(f"{reserved} of {cost} was not reserved")
    ordered, left = account.ordered + cost, account.reserved - reserved
    if max(ordered, account.signed) + left > account.cap:
        raise VoucherOverCap("more than this payee's leaf allows", cap=account.cap, offered=ordered)
    return PayeeAccount(account.cap, account.floor, Nectar(ordered), account.signed, Nectar(left))


def cancel(account: PayeeAccount, cost: int, *, reserved: int) -> PayeeAccount:
    """Undo an order nothing was sent or signed for yet."""
    if not 0 <= reserved <= cost <= account.ordered:
        raise InvalidInput(f"{cost} was not ordered")
    return replace(account, ordered=Nectar(account.ordered - cost), reserved=Nectar(account.reserved + reserved))


def sign(account: PayeeAccount, cumulative: int) -> PayeeAccount:
    """The account once a voucher for `cumulative` is out. Raises InvalidInput for more than was ordered, or less than
    was signed before."""
    if not account.signed <= cumulative <= max(account.ordered, account.signed):
        raise InvalidInput(f"{cumulative} is not between what was signed and what was ordered")
    return replace(account, signed=Nectar(cumulative))


def recover(account: PayeeAccount, charged: int) -> PayeeAccount:
    """Take back prepaid work the payee itself says it never did. Only while no session draws on the account.

    A payee that claims more than was ordered changes nothing: what it says can only make its work cheaper.
    """
    if account.reserved or charged >= account.ordered:
        return account
    return replace(account, ordered=Nectar(max(0, charged)))
