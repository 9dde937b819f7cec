"""The client's promises of money: tranches opened with spares, and cumulative vouchers drawn on them.

What is promised is written to the store before the voucher leaves this object, so a client that crashes and starts
again never promises less than before, nor counts a promise twice. Nothing here ever signs more than the cost of the
work ordered from a payee, its leaf's cap, or the user's spending limit over all payees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ParamSpec, Protocol, TypeVar

from corolla import account as books
from corolla.account import PayeeAccount
from corolla_core.protocol.eip712 import Domain
from corolla_core.protocol.errors import (
    InsufficientFunds,
    PeerMisbehaved,
    SpendingLimitExceeded,
    VoucherOverCap,
)
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, TrancheId
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.sumtree import Leaf, SumProof, SumTree
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher, Voucher
from corolla_core.store.records import ClientTranche

P = ParamSpec("P")
T = TypeVar("T")

#: A tranche that expires sooner than this is not used for a new session.
EXPIRY_MARGIN = 900


class VoucherBook(Protocol):
    """The part of `ClientStore` a wallet needs."""

    def raise_signed_totals(self, totals: Sequence[tuple[TrancheId, Address, Nectar]]) -> None: ...

    def signed_totals(self, tranche_id: TrancheId) -> dict[Address, Nectar]: ...

    def tranches(self, payer: Address | None = None, *, open_only: bool = False) -> list[ClientTranche]: ...


class BookRunner(Protocol):
    """Runs the book's calls off the event loop, in order."""

    async def run(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


class TrancheOpener(Protocol):
    """Opens tranches on chain, leased to this process, and keeps them in the store."""

    async def free_balance(self) -> Nectar: ...

    async def open(self, tree: SumTree, expiry: UnixTime) -> ClientTranche:
        """Raises ChainError, InsufficientFunds."""
        ...


class TrancheLeases(Protocol):
    """Keeps two processes of one account from drawing on the same tranche."""

    def acquire(self, tranche_id: TrancheId) -> bool: ...

    def release_all(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Want:
    """Money a session may need for one payee. A `spare` gets a leaf where the deposit allows, but is not reserved."""

    payee: Address
    need: Nectar
    spare: bool = False


@dataclass(frozen=True, slots=True)
class WalletPolicy:
    """`limit` bounds all that this wallet ever signs; `headroom` sessions fit one tranche; `ttl` is in seconds."""

    limit: Nectar | None = None
    headroom: int = 8
    ttl: int = 24 * 3600


@dataclass(slots=True)
class _Held:
    tranche: ClientTranche
    tree: SumTree
    accounts: dict[Address, PayeeAccount] = field(default_factory=dict)
    receipt_heads: dict[Address, Hash32] = field(default_factory=dict)


class Purse:
    """One session's hold on one payee's leaf. Not usable after `release`."""

    def __init__(self, wallet: Wallet, held: _Held, leaf_index: int, reserved: Nectar) -> None:
        self._wallet = wallet
        self._held = held
        self._left = reserved
        self.leaf: Leaf = held.tree.leaves[leaf_index]
        self.proof: SumProof = held.tree.proof(leaf_index)
        self.ordered = Nectar(0)
        self.released = False

    @property
    def tranche_id(self) -> TrancheId:
        return self._held.tranche.tranche_id

    @property
    def payee(self) -> Address:
        return self.leaf.payee

    @property
    def account(self) -> PayeeAccount:
        return self._held.accounts[self.payee]

    @property
    def room(self) -> Nectar:
        """What may still be ordered through this purse: its own reservation and what nobody reserved."""
        return Nectar(self._left + self.account.free)

    def order(self, cost: Nectar) -> Nectar:
        """Commit to paying for work about to be asked for; returns how much of it had been reserved. Raises
        SpendingLimitExceeded or VoucherOverCap, having changed nothing."""
        reserved = Nectar(min(cost, self._left))
        self._wallet.check_limit(cost - reserved)
        self._held.accounts[self.payee] = books.order(self.account, cost, reserved=reserved)
        self._left = Nectar(self._left - reserved)
        self.ordered = Nectar(self.ordered + cost)
        return reserved

    def set_aside(self, cost: Nectar) -> None:
        """Have `cost` reserved for what is still to be ordered. Raises SpendingLimitExceeded or VoucherOverCap, having
        changed nothing."""
        more = cost - self._left
        if more > 0:
            self._wallet.check_limit(more)
            self._held.accounts[self.payee] = books.reserve(self.account, more)
            self._left = cost

    def cancel(self, cost: Nectar, *, reserved: Nectar) -> None:
        """Undo the last order, `reserved` of which came out of the reservation, before anything was sent for it."""
        self._held.accounts[self.payee] = books.cancel(self.account, cost, reserved=reserved)
        self._left = Nectar(self._left + reserved)
        self.ordered = Nectar(self.ordered - cost)

    def note_receipt(self, head: Hash32) -> None:
        """The next voucher acknowledges this receipt."""
        self._held.receipt_heads[self.payee] = head

    def settle_with(self, *, paid: Nectar, charged: Nectar) -> None:
        """Compare with what the payee says it holds. Raises PeerMisbehaved when it claims a voucher never signed."""
        account = self.account
        if paid > account.signed:
            raise PeerMisbehaved("claims a voucher that was never signed", peer=self.payee)
        others = account.reserved - self._left
        if others == 0 and self.ordered == 0 and not self._wallet.busy(self):
            free = replace(account, reserved=Nectar(0))
            self._held.accounts[self.payee] = replace(books.recover(free, charged), reserved=account.reserved)

    def release(self) -> None:
        """Give the rest of the reservation back."""
        if not self.released:
            self.released = True
            self._held.accounts[self.payee] = books.release(self.account, self._left)
            self._left = Nectar(0)
            self._wallet.forget(self)


class Wallet:
    """Call `load` first. Used from one event loop."""

    def __init__(
        self,
        *,
        signer: Signer,
        payer: Address,
        domain: Domain,
        book: VoucherBook,
        runner: BookRunner,
        opener: TrancheOpener,
        leases: TrancheLeases,
        clock: Callable[[], float],
        policy: WalletPolicy | None = None,
    ) -> None:
        self.policy = policy or WalletPolicy()
        self._signer = signer
        self._payer = payer
        self._domain = domain
        self._book = book
        self._runner = runner
        self._opener = opener
        self._leases = leases
        self._clock = clock
        self._held: list[_Held] = []
        self._purses: set[Purse] = set()
        self._signing = asyncio.Lock()
        self._opening = asyncio.Lock()

    async def load(self) -> None:
        """Take up the tranches an earlier run left, with what it had promised on each."""
        now = self._clock()
        for tranche in await self._runner.run(self._book.tranches, self._payer, open_only=True):
            usable = tranche.opened_tx is not None and tranche.expiry > now + EXPIRY_MARGIN
            if usable and tranche.signer == self._signer.address and self._leases.acquire(tranche.tranche_id):
                await self._take_up(tranche)

    @property
    def committed(self) -> Nectar:
        """What this wallet has spent since it was loaded: signed, or ordered and about to be."""
        return Nectar(sum(a.committed for held in self._held for a in held.accounts.values()))

    @property
    def reserved(self) -> Nectar:
        """What running sessions may still spend."""
        return Nectar(sum(a.reserved for held in self._held for a in held.accounts.values()))

    def check_limit(self, more: int) -> None:
        """Raises SpendingLimitExceeded if `more` on top of all that is spent and reserved passes the limit."""
        limit = self.policy.limit
        needed = self.committed + self.reserved + more
        if limit is not None and more > 0 and needed > limit:
            raise SpendingLimitExceeded("this would pass the spending limit", limit=limit, needed=needed)

    async def reserve(self, wants: Sequence[Want]) -> dict[Address, Purse]:
        """A purse for every want that is no spare, out of tranches held or a new one.

        Raises SpendingLimitExceeded before anything leaves this process, InsufficientFunds, or ChainError.
        """
        firm = [want for want in wants if not want.spare]
        self.check_limit(sum(want.need for want in firm))
        async with self._opening:
            self.check_limit(sum(want.need for want in firm))
            missing = [want for want in firm if self._find(want) is None]
            if missing:
                spares = [want for want in wants if want.spare and self._find(want) is None]
                await self._open(missing, spares)
                self.check_limit(sum(want.need for want in firm))
            return {want.payee: self._purse(want) for want in firm}

    def has_leaf(self, want: Want) -> bool:
        """Whether a tranche already held could pay this want."""
        return self._find(want) is not None

    async def sign(self, purses: Sequence[Purse]) -> list[SignedVoucher | None]:
        """For each purse a voucher for all that was ordered from its payee, or None where all of it is promised.

        On disk before it is returned. Raises StoreError, and then nothing was signed for the purses that failed.
        """
        signed: list[SignedVoucher | None] = []
        async with self._signing:
            due = [purse for purse in dict.fromkeys(purses) if purse.account.unpaid]
            totals = [(purse.tranche_id, purse.payee, purse.account.ordered) for purse in due]
            if totals:
                await self._runner.run(self._book.raise_signed_totals, totals)
            for tranche_id, payee, cumulative in totals:
                accounts = self._of(tranche_id).accounts
                accounts[payee] = books.sign(accounts[payee], cumulative)
            amounts = {(tranche_id, payee): cumulative for tranche_id, payee, cumulative in totals}
            for purse in purses:
                key = (purse.tranche_id, purse.payee)
                signed.append(self._voucher(purse, amounts.pop(key)) if key in amounts else None)
        return signed

    def latest(self, purse: Purse) -> SignedVoucher | None:
        """The highest voucher promised so far, signed again; None when nothing was."""
        return self._voucher(purse, purse.account.signed) if purse.account.signed else None

    def busy(self, purse: Purse) -> bool:
        """Whether another purse draws on the same leaf."""
        return any(
            other is not purse and other.payee == purse.payee and other.tranche_id == purse.tranche_id
            for other in self._purses
        )

    def forget(self, purse: Purse) -> None:
        self._purses.discard(purse)

    def close(self) -> None:
        """Let other processes of this account use its tranches."""
        self._leases.release_all()

    def _voucher(self, purse: Purse, cumulative: Nectar) -> SignedVoucher:
        head = self._of(purse.tranche_id).receipt_heads.get(purse.payee, ZERO_HASH)
        return Voucher(purse.tranche_id, purse.payee, cumulative, head).sign(self._domain, self._signer)

    def _of(self, tranche_id: TrancheId) -> _Held:
        return next(held for held in self._held if held.tranche.tranche_id == tranche_id)

    def _find(self, want: Want) -> _Held | None:
        soon = self._clock() + EXPIRY_MARGIN
        for held in self._held:
            account = held.accounts.get(want.payee)
            if account is not None and account.free >= want.need and held.tranche.expiry > soon:
                return held
        return None

    def _purse(self, want: Want) -> Purse:
        held = self._find(want)
        if held is None:
            raise VoucherOverCap("no leaf can carry this", cap=0, offered=want.need)
        held.accounts[want.payee] = books.reserve(held.accounts[want.payee], want.need)
        index = next(i for i, leaf in enumerate(held.tree.leaves) if leaf.payee == want.payee)
        purse = Purse(self, held, index, want.need)
        self._purses.add(purse)
        return purse

    async def _open(self, firm: Sequence[Want], spares: Sequence[Want]) -> None:
        free = await self._opener.free_balance()
        leaves = plan_leaves(firm, spares, free=free, headroom=self.policy.headroom, most=self._room())
        expiry = UnixTime(int(self._clock()) + self.policy.ttl)
        await self._take_up(await self._opener.open(SumTree(leaves), expiry))

    def _room(self) -> int | None:
        limit = self.policy.limit
        return None if limit is None else max(0, limit - self.committed - self.reserved)

    async def _take_up(self, tranche: ClientTranche) -> None:
        signed = await self._runner.run(self._book.signed_totals, tranche.tranche_id)
        held = _Held(tranche, SumTree(tranche.leaves))
        for leaf in tranche.leaves:
            held.accounts[leaf.payee] = PayeeAccount.resumed(leaf.cap, signed.get(leaf.payee, Nectar(0)))
        self._held.append(held)


def plan_leaves(
    firm: Sequence[Want], spares: Sequence[Want], *, free: int, headroom: int, most: int | None = None
) -> list[Leaf]:
    """The leaves of a new tranche: room for `headroom` sessions and for spares, cheapest first, as far as `free`
    allows.

    No cap is above `most` (what may still be spent) unless a firm want needs it. Raises InsufficientFunds when not
    even the firm wants fit.
    """
    needs: dict[Address, int] = {}
    for want in firm:
        # Never zero: the escrow locks no empty tranche, and a free node needs a leaf like any other.
        needs[want.payee] = max(1, needs.get(want.payee, 0) + want.need)
    least = sum(needs.values())
    if least > free:
        raise InsufficientFunds("deposit more to open this tranche", available=free, needed=least)
    extra = sorted((int(want.need), want.payee) for want in spares if want.payee not in needs)
    # The dearest spare goes first: one absurd price must not cost the tranche all of its substitutes.
    for kept in range(len(extra), -1, -1):
        chosen = needs | {payee: need for need, payee in extra[:kept]}
        for factor in range(max(1, headroom), 0, -1):
            caps = {payee: _capped(need, factor, most) for payee, need in chosen.items()}
            if sum(caps.values()) <= free:
                return [Leaf(payee, Nectar(cap)) for payee, cap in caps.items()]
    raise InsufficientFunds("deposit more to open this tranche", available=free, needed=least)


def _capped(need: int, factor: int, most: int | None) -> int:
    return need * factor if most is None else max(need, min(need * factor, most))
