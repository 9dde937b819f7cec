"""Transactions that happen once, whatever the network, the pool and the account's other users do.

The rule behind every branch: a call that may have reached a pool keeps its nonce until the chain shows that another
transaction took it. All forms of the call (fee bumps) share that nonce, so at most one of them can ever be mined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, overload

import structlog
from eth_account import Account

from corolla_core.chain.account import Call, PendingCall, Variant
from corolla_core.chain.devnet_keys import DEVNET_CHAIN_IDS, refuse_devnet_key
from corolla_core.chain.mined import Mined, parse_receipt
from corolla_core.chain.refusal import Refusal, classify
from corolla_core.chain.rpc import Chain, block_id, hex_int
from corolla_core.protocol.errors import (
    ChainError,
    ChainUnreachable,
    InsufficientFunds,
    RpcRefused,
    TransactionNotMined,
    TransactionReplaced,
    TransactionReverted,
)
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.signature import Signer

log = structlog.get_logger(__name__)

GWEI = 10**9
_LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds; and `replaced_depth`, the blocks over another transaction of the same
    nonce before ours is taken for dead (None: 0 on a devnet, 3 elsewhere)."""

    mined: float = 120.0
    poll_first: float = 0.05
    poll_most: float = 2.0
    rebroadcast: float = 5.0
    bump: float = 30.0
    most_bumps: int = 8
    replaced_depth: int | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """A call on its way, that nobody follows until `mined` is awaited."""

    sender: TransactionSender
    pending: PendingCall

    @property
    def tx_hash(self) -> Hash32:
        return self.pending.latest.hash

    async def mined(self) -> Mined:
        """As `TransactionSender.send` with `wait`."""
        self.sender.state.unfollowed.remove(self.pending)
        return await self.sender.follow(self.pending)


class TransactionSender:
    """Signs and sends one account's calls. Any number of tasks may send at once; senders of one account on one Chain
    share its nonces, and other processes may use the same key."""

    def __init__(self, chain: Chain, signer: Signer, *, patience: Patience | None = None) -> None:
        refuse_devnet_key(signer.address, chain.chain_id)
        self.chain = chain
        self.patience = patience or Patience()
        self.state = chain.account_state(signer.address)
        self._signer = signer
        depth = self.patience.replaced_depth
        self._depth = depth if depth is not None else 0 if chain.chain_id in DEVNET_CHAIN_IDS else 3

    @property
    def address(self) -> Address:
        return self._signer.address

    @overload
    async def send(self, call: Call) -> Mined: ...
    @overload
    async def send(self, call: Call, *, wait: Literal[True]) -> Mined: ...
    @overload
    async def send(self, call: Call, *, wait: Literal[False]) -> Sent: ...
    async def send(self, call: Call, *, wait: bool = True) -> Mined | Sent:
        """Have `call` mined once.

        Raises, having done nothing: ChainUnreachable, InsufficientFunds (for gas), RpcRefused, TransactionReverted
        (with the contract's own reason; also when it was mined and failed), TransactionReplaced.

        Raises TransactionNotMined when time is up and the outcome unknown. An equal call sent afterwards takes up the
        same transaction again and never makes a second; `forget` ends that.
        """
        async with self.state.lock:
            pending = self.state.take_unresolved(call)
            if pending is None:
                await self._revive()
                pending = PendingCall(call, nonce=-1, gas=0, variants=[])
                try:
                    await self._place(pending)
                except BaseException:
                    if pending.in_doubt:  # cancelled while the endpoint had it
                        self.state.unresolved.append(pending)
                    raise
            (self.state.in_flight if wait else self.state.unfollowed).append(pending)
        if not wait:
            return Sent(self, pending)
        return await self._follow_listed(pending)

    async def follow(self, pending: PendingCall) -> Mined:
        """Nurse a placed call until it is mined."""
        self.state.in_flight.append(pending)
        return await self._follow_listed(pending)

    def forget(self, tx_hash: Hash32) -> None:
        """Stop waiting for a transaction of unknown outcome: an equal call is a new one from now on."""
        self.state.unresolved[:] = [p for p in self.state.unresolved if all(v.hash != tx_hash for v in p.variants)]

    async def _follow_listed(self, pending: PendingCall) -> Mined:
        try:
            return await self._until_mined(pending)
        finally:
            self.state.in_flight.remove(pending)
            if pending.in_doubt:
                self.state.unresolved.append(pending)

    # ---- placing: a nonce, a signature, an endpoint that takes it ----

    async def _place(self, pending: PendingCall) -> None:
        """Give the call a fresh nonce and hand it to the endpoint. The caller holds the lock.

        Returns when it was or may have been taken. When this raises, it was not sent.
        """
        pending.copies_count = await self.chain.executes_copies()
        gas = pending.call.gas or await self._estimate(pending.call)
        fees = await self._fees()
        end = self.chain.clock.monotonic() + self.chain.deadline
        while True:
            used = hex_int(await self.chain.request("eth_getTransactionCount", self.address, "pending"))
            pending.nonce, pending.gas, pending.in_doubt = self.state.next_nonce(used), gas, False
            pending.variants = [self._sign(pending.call, pending.nonce, gas, fees)]
            refusal = await self._broadcast(pending, pending.latest)
            if refusal is None or pending.in_doubt:
                return
            if refusal is Refusal.NO_FUNDS:
                needed = gas * fees[0] + pending.call.value
                available = await self.chain.balance(self.address)
                raise InsufficientFunds(f"{self.address} cannot pay for gas", available=available, needed=needed)
            if refusal is Refusal.INVALID or self.chain.clock.monotonic() >= end:
                raise RpcRefused(f"{pending.call.about} was refused: {refusal.value}")
            if refusal is Refusal.FEE_TOO_LOW:
                fees = _raised(fees, await self._fees())
            log.info("tx.refused", about=pending.call.about, nonce=pending.nonce, why=refusal.value)
            await self.chain.clock.sleep(self.patience.poll_first)

    async def _broadcast(self, pending: PendingCall, variant: Variant) -> Refusal | None:
        """One try; None when taken. Keeps `in_doubt` true unless the endpoint clearly said no to a first try."""
        before = pending.in_doubt
        pending.in_doubt = True  # also if we are cancelled while waiting for the answer
        try:
            await self.chain.request("eth_sendRawTransaction", "0x" + variant.raw.hex(), deadline=0)
        except ChainUnreachable:
            return Refusal.UNCLEAR
        except TransactionReverted:
            return Refusal.UNCLEAR  # some endpoints mine a transaction and answer with its revert
        except RpcRefused as error:
            refusal = classify(error.message)
            if refusal is Refusal.ALREADY_KNOWN:
                return None
            if refusal is not Refusal.UNCLEAR:
                pending.in_doubt = before
            return refusal
        return None

    async def _estimate(self, call: Call) -> int:
        """Gas with a quarter to spare; TransactionReverted when the call would fail."""
        estimate = hex_int(await self.chain.request("eth_estimateGas", self._as_message(call)))
        return estimate * 5 // 4

    async def _fees(self) -> tuple[int, int]:
        """(max fee, tip) that pass while the base fee no more than doubles."""
        newest = await self.chain.block("latest")
        if newest is None or "baseFeePerGas" not in newest:
            raise ChainError("the chain has no EIP-1559 base fee")
        try:
            tip = hex_int(await self.chain.request("eth_maxPriorityFeePerGas"))
        except RpcRefused:
            tip = GWEI
        return 2 * hex_int(newest["baseFeePerGas"]) + tip, tip

    def _sign(self, call: Call, nonce: int, gas: int, fees: tuple[int, int]) -> Variant:
        transaction: dict[str, Any] = {
            "type": 2,
            "chainId": self.chain.chain_id,
            "nonce": nonce,
            "gas": gas,
            "maxFeePerGas": fees[0],
            "maxPriorityFeePerGas": fees[1],
            "value": call.value,
            "data": call.data,
        }
        if call.to is not None:
            transaction["to"] = call.to
        signed = Account.sign_transaction(transaction, self._signer.secret)
        return Variant(Hash32(bytes(signed.hash)), bytes(signed.raw_transaction), *fees)

    def _as_message(self, call: Call) -> dict[str, str]:
        message = {"from": self.address, "data": "0x" + call.data.hex(), "value": hex(call.value)}
        return message if call.to is None else message | {"to": call.to}

    # ---- following: mined, dropped, stuck, or replaced by somebody else's ----

    async def _until_mined(self, pending: PendingCall) -> Mined:
        clock, patience = self.chain.clock, self.patience
        end = clock.monotonic() + patience.mined
        pause = patience.poll_first
        next_broadcast = clock.monotonic()
        next_bump = clock.monotonic() + patience.bump
        replaced = False
        if pending.copies_count:
            next_broadcast += patience.rebroadcast  # time for a copy on its way to arrive
            next_bump = math.inf
        while True:
            try:
                mined, replaced = await self._look(pending)
                if mined is not None:
                    return mined
                if replaced and await self._is_dead(pending):
                    log.warning("tx.replaced", about=pending.call.about, nonce=pending.nonce)
                    pending.in_doubt = False
                    async with self.state.lock:
                        await self._place(pending)
                    replaced = False
                elif not replaced:
                    now = clock.monotonic()
                    known = await self._known(pending)
                    if known and now >= next_bump:
                        await self._bump(pending)
                        next_bump = clock.monotonic() + patience.bump
                    elif not known and now >= next_broadcast:
                        await self._rebroadcast(pending)
                        next_broadcast = clock.monotonic() + patience.rebroadcast
            except ChainUnreachable as error:
                log.debug("tx.waiting_for_rpc", about=pending.call.about, error=str(error))
            except ChainError as error:
                if not pending.in_doubt:
                    raise  # it was mined and failed, or placing it anew did
                log.debug("tx.look_refused", about=pending.call.about, error=str(error))
            if clock.monotonic() >= end:
                self._give_up(pending, replaced=replaced)
            await clock.sleep(pause)
            pause = min(pause * 1.5, patience.poll_most)

    def _give_up(self, pending: PendingCall, *, replaced: bool) -> None:
        tx_hash, about = pending.latest.hash, pending.call.about
        if replaced:
            raise TransactionReplaced(
                f"{about}: another transaction took its nonce", tx_hash=tx_hash, nonce=pending.nonce
            )
        raise TransactionNotMined(f"{about} was not seen mined in {self.patience.mined:.0f} s", tx_hash=tx_hash)

    async def _look(self, pending: PendingCall) -> tuple[Mined | None, bool]:
        """(what was mined, whether the nonce is used though). Raises TransactionReverted if it was mined and failed."""
        # The count is read first: were the nonce used between the two reads, we would only look once more.
        if await self._used("latest") <= pending.nonce:
            return None, False
        for variant in reversed(pending.variants):
            receipt = await self._ask("eth_getTransactionReceipt", "0x" + variant.hash.hex())
            if receipt is not None:
                found = parse_receipt(receipt)
                pending.in_doubt = False  # it happened, and cannot again
                if not found.succeeded:
                    raise await self._why_reverted(pending, found.mined.block_number)
                return found.mined, False
        return None, True

    async def _is_dead(self, pending: PendingCall) -> bool:
        """Whether the transaction that took our nonce lies deep enough that no reorg will free the nonce again, and
        is not one of ours whose receipt the endpoint has yet to find."""
        if await self._known(pending):
            return False
        if self._depth == 0:
            return True
        head = hex_int(await self._ask("eth_blockNumber"))
        return head >= self._depth and await self._used(hex(head - self._depth)) > pending.nonce

    async def _known(self, pending: PendingCall) -> bool:
        """Whether the endpoint has any form of the call, waiting or mined."""
        for variant in reversed(pending.variants):
            if await self._ask("eth_getTransactionByHash", "0x" + variant.hash.hex()) is not None:
                return True
        return False

    async def _rebroadcast(self, pending: PendingCall) -> None:
        """Offer the forms of the call, the best paid first, until one is taken."""
        refusal = None
        for variant in reversed(pending.variants):
            refusal = await self._broadcast(pending, variant)
            if refusal not in (Refusal.FEE_TOO_LOW, Refusal.NO_FUNDS):
                break
        log.info("tx.rebroadcast", about=pending.call.about, nonce=pending.nonce, refusal=refusal and refusal.value)
        if refusal is Refusal.FEE_TOO_LOW and not pending.copies_count:
            await self._bump(pending)

    async def _bump(self, pending: PendingCall) -> None:
        """The same call at the same nonce for a higher fee, if it was not raised too often already."""
        if len(pending.variants) > self.patience.most_bumps:
            return
        fees = _raised((pending.latest.max_fee, pending.latest.tip), await self._fees())
        pending.variants.append(self._sign(pending.call, pending.nonce, pending.gas, fees))
        refusal = await self._broadcast(pending, pending.latest)
        log.info("tx.bumped", about=pending.call.about, nonce=pending.nonce, refusal=refusal and refusal.value)

    async def _revive(self) -> None:
        """Hand the endpoint again what nobody follows and it lost, lest later nonces wait behind it."""
        waiting = [*self.state.unresolved, *self.state.unfollowed]
        if not waiting:
            return
        used = await self._used("latest")
        self.state.unfollowed[:] = [p for p in self.state.unfollowed if p.nonce >= used]
        for pending in waiting:
            if pending.nonce >= used and not await self._known(pending):
                await self._rebroadcast(pending)

    async def _why_reverted(self, pending: PendingCall, block: int) -> TransactionReverted:
        """The revert of a failed transaction, found by running it again on the state before and after its block."""
        message = self._as_message(pending.call) | {"gas": hex(pending.gas)}
        for number in (block - 1, block):
            try:
                await self._ask("eth_call", message, block_id(number))
            except TransactionReverted as error:
                return TransactionReverted(pending.call.about + " reverted", reason=error.reason)
            except RpcRefused:
                break
        return TransactionReverted(pending.call.about + " reverted", reason="not reproducible: out of gas, or a race")

    async def _used(self, block: str) -> int:
        return hex_int(await self._ask("eth_getTransactionCount", self.address, block))

    async def _ask(self, method: str, *params: Any) -> Any:
        return await self.chain.request(method, *params, deadline=min(_LOOK_SECONDS, self.chain.deadline))


def _raised(old: tuple[int, int], market: tuple[int, int]) -> tuple[int, int]:
    """Fees that replace `old` in a pool (a quarter over, where most want a tenth) and that today's market takes."""
    return max(old[0] * 5 // 4 + 1, market[0]), max(old[1] * 5 // 4 + 1, market[1])
