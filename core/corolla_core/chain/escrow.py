"""The escrow: deposits, tranches, redemption (protocol.md section 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corolla_core.chain.contract import Contract
from corolla_core.chain.mined import Mined
from corolla_core.chain.rpc import Chain, hex_int
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import ChainError, TrancheUnknown
from corolla_core.protocol.ids import ZERO_ADDRESS, Address, Hash32, TrancheId
from corolla_core.protocol.sumtree import Leaf, SumNode, SumProof
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import SignedVoucher, tranche_id


@dataclass(frozen=True, slots=True)
class Tranche:
    """A tranche on chain. `signer` is the payer itself unless a session key opened it.

    Vouchers should not be taken after `expiry`; redemption ends after `closes_at`. `fee_bps` is burned of claims.
    """

    id: TrancheId
    payer: Address
    signer: Address
    root: Hash32
    total: Nectar
    redeemed: Nectar
    expiry: UnixTime
    closes_at: UnixTime
    fee_bps: int
    reclaimed: bool

    @property
    def sum_node(self) -> SumNode:
        """The root to verify a leaf's branch against."""
        return SumNode(self.root, self.total)


@dataclass(frozen=True, slots=True)
class RedeemItem:
    """A voucher with all that redeeming it takes."""

    signed: SignedVoucher
    leaf: Leaf
    proof: SumProof


@dataclass(frozen=True, slots=True)
class Redeemed:
    """What one item brought: claims rose by `amount` to `cumulative`, of which `fee` was burned."""

    tranche_id: TrancheId
    payee: Address
    amount: Nectar
    fee: Nectar
    cumulative: Nectar


@dataclass(frozen=True, slots=True)
class Redemption:
    """A mined batch. Items that claimed no more than before are left out of `items`."""

    mined: Mined
    items: tuple[Redeemed, ...]

    @property
    def paid(self) -> Nectar:
        """What payees were credited, net of fees."""
        return Nectar(sum(item.amount - item.fee for item in self.items))


@dataclass(frozen=True, slots=True)
class SessionKey:
    """What a payer allows a session key; all zero when it is not authorised."""

    cap: Nectar
    opened: Nectar
    expiry: UnixTime
    thawed_at: UnixTime
    last_close: UnixTime


@dataclass(frozen=True, slots=True)
class EscrowParameters:
    """Fractions in 1/10,000, times in seconds."""

    fee_bps: int
    lock_bps: int
    grace: int
    audit_window: int
    thaw_delay: int


class Escrow(Contract):
    """Writes act for the sender's account and raise TransactionReverted with the contract's reason."""

    abi_name = "Escrow"

    def __init__(self, chain: Chain, sender: TransactionSender | None = None) -> None:
        super().__init__(chain, chain.network.escrow, sender)

    # ---- the payer's money ----

    async def deposit(self, amount: Nectar) -> Mined:
        """Add to the sender's free balance; approves the escrow first if needed."""
        await Token(self.chain, self.sender).ensure_allowance(self.address, amount)
        return await self._send("deposit", amount)

    async def deposit_for(self, account: Address, amount: Nectar) -> Mined:
        """Add the sender's tokens to another account's free balance."""
        await Token(self.chain, self.sender).ensure_allowance(self.address, amount)
        return await self._send("depositFor", account, amount)

    async def free_balance(self, account: Address) -> Nectar:
        return Nectar(await self._read("freeBalance", account))

    async def withdraw_free(self, amount: Nectar, *, to: Address | None = None) -> Mined:
        return await self._send("withdrawFree", to or self.sender.address, amount)

    # ---- tranches ----

    async def tranche_nonce(self, payer: Address) -> int:
        """The nonce of the payer's next tranche."""
        return int(await self._read("trancheNonce", payer))

    async def next_tranche_id(self, payer: Address) -> TrancheId:
        """The id the payer's next tranche will have, so that it can be noted before it is opened."""
        return tranche_id(self.chain.chain_id, self.address, payer, await self.tranche_nonce(payer))

    async def open_tranche(self, root: SumNode, expiry: UnixTime, *, payer: Address | None = None) -> Tranche:
        """Lock `root.sum` of the free balance of the sender, or of a `payer` that authorised the sender."""
        if payer is None or payer == self.sender.address:
            mined = await self._send("openTranche", root.hash, root.sum, expiry)
        else:
            mined = await self._send("openTrancheFor", payer, root.hash, root.sum, expiry)
        for event in self._events(mined, "TrancheOpened"):
            return await self.tranche(TrancheId(event.arguments["trancheId"]))
        raise ChainError("opening a tranche left no event")

    async def tranche(self, identifier: TrancheId) -> Tranche:
        """Raises TrancheUnknown."""
        found = await self._read("tranche", identifier)
        payer, expiry, fee_bps, signer, closes_at, reclaimed, total, redeemed, root = found
        if payer == ZERO_ADDRESS:
            raise TrancheUnknown(tranche_id=identifier)
        return Tranche(
            id=identifier,
            payer=payer,
            signer=payer if signer == ZERO_ADDRESS else signer,
            root=Hash32(root),
            total=Nectar(total),
            redeemed=Nectar(redeemed),
            expiry=UnixTime(expiry),
            closes_at=UnixTime(closes_at),
            fee_bps=fee_bps,
            reclaimed=reclaimed,
        )

    async def claimed(self, identifier: TrancheId, payee: Address) -> Nectar:
        """What a payee has claimed of a tranche so far, fees included."""
        return Nectar(await self._read("claimed", identifier, payee))

    async def receipt_head(self, identifier: TrancheId, payee: Address) -> Hash32:
        """The receipt that a payee's last redemption on a tranche acknowledged; zero where there is none."""
        return Hash32(await self._read("receiptHead", identifier, payee))

    async def reclaim(self, identifier: TrancheId) -> Nectar:
        """Return what was not redeemed of a closed tranche to its payer's free balance; returns how much."""
        mined = await self._send("reclaim", identifier)
        return Nectar(sum(event.arguments["amount"] for event in self._events(mined, "TrancheReclaimed")))

    # ---- payees ----

    async def redeem(self, items: Sequence[RedeemItem]) -> Redemption:
        """Claim a batch of vouchers. One bad item reverts the whole; items already claimed are skipped."""
        mined = await self._send("redeem", [_redemption(item) for item in items])
        return Redemption(
            mined,
            tuple(
                Redeemed(
                    tranche_id=TrancheId(event.arguments["trancheId"]),
                    payee=event.arguments["payee"],
                    amount=Nectar(event.arguments["amount"]),
                    fee=Nectar(event.arguments["fee"]),
                    cumulative=Nectar(event.arguments["cumulative"]),
                )
                for event in self._events(mined, "Redeemed")
            ),
        )

    async def redeem_gas(self, items: Sequence[RedeemItem]) -> int:
        """An estimate of the gas that redeeming the batch takes. Raises TransactionReverted if it would fail."""
        data = self.abi.encode("redeem", [_redemption(item) for item in items])
        message = {"from": self.sender.address, "to": self.address, "data": "0x" + data.hex()}
        return hex_int(await self.chain.request("eth_estimateGas", message))

    async def payee_balance(self, payee: Address) -> Nectar:
        return Nectar(await self._read("payeeBalance", payee))

    async def withdraw_payee(self, *, to: Address | None = None) -> Nectar:
        """Send all the sender has earned; returns how much."""
        mined = await self._send("withdrawPayee", to or self.sender.address)
        return Nectar(sum(event.arguments["amount"] for event in self._events(mined, "PayeeWithdrawn")))

    # ---- session keys ----

    async def authorize_signer(self, signer: Address, cap: Nectar, expiry: UnixTime) -> Mined:
        """Let `signer` open tranches worth up to `cap` and sign their vouchers, until `expiry`."""
        return await self._send("authorizeSigner", signer, cap, expiry)

    async def thaw_signer(self, signer: Address) -> Mined:
        """Stop new tranches by `signer` at once."""
        return await self._send("thawSigner", signer)

    async def revoke_signer(self, signer: Address) -> Mined:
        """Forget a thawed key once none of its vouchers can be redeemed any more."""
        return await self._send("revokeSigner", signer)

    async def session_key(self, payer: Address, signer: Address) -> SessionKey:
        cap, opened, expiry, thawed_at, last_close = await self._read("session", payer, signer)
        return SessionKey(Nectar(cap), Nectar(opened), UnixTime(expiry), UnixTime(thawed_at), UnixTime(last_close))

    # ---- parameters ----

    async def parameters(self) -> EscrowParameters:
        return EscrowParameters(*await self._read("parameters"))

    async def grace(self) -> int:
        """Seconds after its expiry that a tranche stays redeemable."""
        return (await self.parameters()).grace


def _redemption(item: RedeemItem) -> tuple[object, ...]:
    voucher, proof = item.signed.voucher, item.proof
    return (
        (voucher.tranche_id, voucher.payee, voucher.cumulative, voucher.receipt_head),
        item.leaf.cap,
        proof.index,
        [(sibling.hash, sibling.sum) for sibling in proof.siblings],
        item.signed.signature,
    )
