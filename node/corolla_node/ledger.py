"""What a node does for which voucher: pure decisions on numbers. All amounts are `Nectar` base units.

One `Account` per tranche: the work of every session that draws on the tranche adds up in it, because vouchers are
cumulative per (tranche, payee). Work is `held` from the moment a step may start and becomes `charged` when it has been
computed; a step that was never computed is let go again and costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from corolla_core.protocol.errors import (
    InvalidInput,
    PriceTooLow,
    TrancheExpired,
    VoucherForged,
    VoucherOverCap,
    VoucherStale,
    VoucherTooSmall,
    VoucherWrongPayee,
)
from corolla_core.protocol.ids import Address, TrancheId
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.sumtree import Leaf, SumNode, SumProof, verify
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import Voucher

NOTHING = Nectar(0)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the chain says of a tranche, and what its tree promises this node at most (`cap`)."""

    tranche_id: TrancheId
    payee: Address
    signers: frozenset[Address]
    cap: Nectar
    expiry: UnixTime


@dataclass(frozen=True, slots=True)
class Account:
    """One tranche as this node sees it: work held (started), work charged (done), and the best voucher's amount."""

    held: Nectar = NOTHING
    charged: Nectar = NOTHING
    paid: Nectar = NOTHING

    @property
    def unpaid(self) -> Nectar:
        """What has been ordered beyond the best voucher; never negative."""
        return Nectar(max(0, self.charged + self.held - self.paid))


def hold(account: Account, cost: Nectar, *, credit: Nectar) -> Account:
    """The account with a step of `cost` begun.

    Raises VoucherTooSmall when that would leave more than `credit` unpaid; its `owed` is the smallest cumulative
    amount that would let the step begin.
    """
    if cost < 0 or credit < 0:
        raise InvalidInput("cost and credit are not negative")
    owed = account.charged + account.held + cost - credit
    if owed > account.paid:
        raise VoucherTooSmall("pay before this step", owed=owed, offered=account.paid)
    return Account(Nectar(account.held + cost), account.charged, account.paid)


def charge(account: Account, cost: Nectar) -> Account:
    """The account once a step that was held for `cost` has been computed."""
    left = _let_go(account, cost)
    return Account(left.held, Nectar(left.charged + cost), left.paid)


def let_go(account: Account, cost: Nectar) -> Account:
    """The account once a step that was held for `cost` turned out not to be computed."""
    return _let_go(account, cost)


def check_voucher(account: Account, terms: Terms, voucher: Voucher, *, signer: Address, now: UnixTime) -> Account:
    """The account with `voucher` as its best.

    Raises VoucherWrongPayee, VoucherForged, TrancheExpired, VoucherOverCap or VoucherStale (not above the best one).
    """
    if voucher.payee != terms.payee:
        raise VoucherWrongPayee("the voucher pays somebody else", expected=terms.payee, offered=voucher.payee)
    if signer not in terms.signers:
        raise VoucherForged("the signer may not draw on this tranche", signer=signer)
    if now >= terms.expiry:
        raise TrancheExpired("the tranche has expired", expiry=terms.expiry, now=now)
    if voucher.cumulative > terms.cap:
        raise VoucherOverCap("more than this node's leaf allows", cap=terms.cap, offered=voucher.cumulative)
    if voucher.cumulative <= account.paid:
        raise VoucherStale("not above the best voucher", known=account.paid, offered=voucher.cumulative)
    return replace(account, paid=voucher.cumulative)


def check_tranche(
    *,
    root: SumNode,
    expiry: UnixTime,
    leaf: Leaf,
    proof: SumProof,
    payee: Address,
    now: UnixTime,
    margin: int,
) -> None:
    """Whether a tranche collateralises this node's leaf for long enough to be worth serving.

    Raises VoucherWrongPayee, InvalidProof, or TrancheExpired when fewer than `margin` seconds are left.
    """
    if leaf.payee != payee:
        raise VoucherWrongPayee("the leaf names somebody else", expected=payee, offered=leaf.payee)
    verify(root, leaf, proof)
    if expiry < now + margin:
        raise TrancheExpired("the tranche expires too soon", expiry=expiry, now=now)


def check_price(*, asked: Price, offered: Price) -> None:
    """Raises PriceTooLow."""
    if offered.per_token_block < asked.per_token_block:
        raise PriceTooLow("the node asks more", asked=asked.per_token_block, offered=offered.per_token_block)


def _let_go(account: Account, cost: Nectar) -> Account:
    if not 0 <= cost <= account.held:
        raise InvalidInput(f"{cost} was not held")
    return Account(Nectar(account.held - cost), account.charged, account.paid)
