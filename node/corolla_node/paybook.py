"""The tranches this node is paid from: what the chain says of each, what was earned, and the best voucher held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corolla_core.protocol.eip712 import Domain
from corolla_core.protocol.errors import TrancheExpired, TrancheUnknown, VoucherOverCap, VoucherTooSmall
from corolla_core.protocol.ids import Address, Hash32, TrancheId
from corolla_core.protocol.sumtree import Leaf, SumProof
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher, Voucher
from corolla_core.swarm.messages import Pay
from corolla_node import ledger
from corolla_node.bookkeeper import Bookkeeper, VoucherEntry
from corolla_node.ledger import Account, Terms
from corolla_node.ports import Clock, Memory, Tranches

#: Seconds after a tranche's expiry when its page is dropped; by then no session has had anything to pay with for long.
FORGET_AFTER = 86_400


@dataclass(slots=True)
class _Page:
    terms: Terms
    payer: Address
    leaf: Leaf
    proof: SumProof
    account: Account
    best: SignedVoucher | None


class Paybook:
    """Used from the event loop only; nothing here blocks but `enroll`, which reads the chain and the store."""

    def __init__(
        self,
        *,
        payee: Address,
        domain: Domain,
        tranches: Tranches,
        memory: Memory,
        bookkeeper: Bookkeeper,
        clock: Clock,
        expiry_margin: int = 600,
    ) -> None:
        self._payee = payee
        self._domain = domain
        self._tranches = tranches
        self._memory = memory
        self._bookkeeper = bookkeeper
        self._clock = clock
        self._margin = expiry_margin
        self._pages: dict[TrancheId, _Page] = {}

    async def enroll(self, tranche_id: TrancheId, leaf: Leaf, proof: SumProof) -> Account:
        """Take a tranche on, or check another session's branch of a known one.

        Raises TrancheUnknown, TrancheExpired, VoucherWrongPayee, InvalidProof, or ChainError.
        """
        known = self._pages.get(tranche_id)
        if known is not None and known.leaf == leaf and known.proof == proof:
            self._check_expiry(known.terms, margin=self._margin)
            return known.account
        self._forget_expired()
        tranche = await self._tranches.tranche(tranche_id)
        ledger.check_tranche(
            root=tranche.sum_node,
            expiry=tranche.expiry,
            leaf=leaf,
            proof=proof,
            payee=self._payee,
            now=self._now(),
            margin=self._margin,
        )
        terms = Terms(tranche_id, self._payee, frozenset({tranche.payer, tranche.signer}), leaf.cap, tranche.expiry)
        best, charged = await self._memory.best(tranche_id), await self._memory.charged(tranche_id)
        # Another session may have enrolled the tranche during the reads above: its account is the newer one.
        known = self._pages.get(tranche_id)
        if known is None:
            paid = best.voucher.cumulative if best else Nectar(0)
            self._pages[tranche_id] = _Page(
                terms, tranche.payer, leaf, proof, Account(charged=charged, paid=paid), best
            )
        elif leaf.cap > known.leaf.cap:
            known.terms, known.leaf, known.proof = terms, leaf, proof
        return self._pages[tranche_id].account

    def _forget_expired(self) -> None:
        """Drop what nobody can pay with any more, so that a long-lived node does not grow with every tranche it saw."""
        now = self._now()
        for tranche_id, page in list(self._pages.items()):
            if now >= page.terms.expiry + FORGET_AFTER and not page.account.held:
                del self._pages[tranche_id]

    def account(self, tranche_id: TrancheId) -> Account:
        """Raises TrancheUnknown."""
        return self._page(tranche_id).account

    def payer(self, tranche_id: TrancheId) -> Address:
        """Whose money it is. Raises TrancheUnknown."""
        return self._page(tranche_id).payer

    def check_means(self, tranche_id: TrancheId, cost: Nectar) -> None:
        """Whether what is left of the leaf's cap pays for `cost` at least. Raises VoucherOverCap, TrancheUnknown."""
        page = self._page(tranche_id)
        needed = Nectar(page.account.charged + page.account.held + cost)
        if needed > page.terms.cap:
            raise VoucherOverCap("too little is left for this node", cap=page.terms.cap, offered=needed)

    def hold(self, tranche_id: TrancheId, cost: Nectar, *, credit: Nectar) -> None:
        """Begin a step. Raises VoucherTooSmall, or TrancheExpired where only a voucher that can no longer come would
        let it begin."""
        page = self._page(tranche_id)
        expired = self._now() >= page.terms.expiry
        try:
            page.account = ledger.hold(page.account, cost, credit=Nectar(0) if expired else credit)
        except VoucherTooSmall:
            if expired:
                self._check_expiry(page.terms, margin=0)
            raise

    def charge(self, tranche_id: TrancheId, cost: Nectar) -> None:
        """A held step has been computed."""
        page = self._page(tranche_id)
        page.account = ledger.charge(page.account, cost)
        self._bookkeeper.charge(tranche_id, page.account.charged)

    def let_go(self, tranche_id: TrancheId, cost: Nectar) -> None:
        """A held step was not computed."""
        page = self._page(tranche_id)
        page.account = ledger.let_go(page.account, cost)

    def accept(self, pay: Pay, saved: Callable[[Nectar], None]) -> bool:
        """Check a voucher and count it at once; `saved(cumulative)` is called when it is on disk.

        False when it is the best voucher over again (`saved` is called then too). Raises TrancheUnknown, VoucherForged,
        InvalidSignature, TrancheExpired, VoucherOverCap, or VoucherStale.
        """
        page = self._page(TrancheId(pay.tranche_id))
        cumulative = Nectar(int.from_bytes(pay.cumulative, "big"))
        voucher = Voucher(page.terms.tranche_id, self._payee, cumulative, Hash32(pay.receipt_head))
        signed = SignedVoucher(voucher, pay.signature)
        if signed == page.best:
            self._bookkeeper.saved(lambda: saved(cumulative))
            return False
        signer = signed.signer(self._domain)
        page.account = ledger.check_voucher(page.account, page.terms, voucher, signer=signer, now=self._now())
        page.best = signed
        self._bookkeeper.voucher(
            VoucherEntry(signed, page.leaf, page.proof, page.terms.expiry), lambda: saved(cumulative)
        )
        return True

    def _page(self, tranche_id: TrancheId) -> _Page:
        page = self._pages.get(tranche_id)
        if page is None:
            raise TrancheUnknown("no session was opened on this tranche", tranche_id=tranche_id)
        return page

    def _check_expiry(self, terms: Terms, *, margin: int) -> None:
        now = self._now()
        if terms.expiry < now + margin or now >= terms.expiry:
            raise TrancheExpired("the tranche has expired or soon will", expiry=terms.expiry, now=now)

    def _now(self) -> UnixTime:
        return UnixTime(int(self._clock()))
