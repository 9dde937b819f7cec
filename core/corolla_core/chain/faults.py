"""Provable faults: what a node's own signature convicts it of, and openings it owes (protocol.md section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from eth_utils.crypto import keccak

from corolla_core.chain.contract import Contract
from corolla_core.chain.mined import Mined
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import ChainError, ConfigError
from corolla_core.protocol.ids import ZERO_ADDRESS, ZERO_HASH, Address, Hash32, SessionId, TrancheId
from corolla_core.protocol.receipt import Receipt, SignedReceipt
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime

MAX_CHAIN = 256
"""The most receipts between a redeemed head and a challenged one."""
MAX_RESPONSE_SECONDS = 7 * 86_400
"""The longest that governance may give a node to open a row: no older challenge is open."""


class Side(IntEnum):
    """Which rows of a receipt: those under its `in_root` or those under its `out_root`."""

    INPUT = 0
    OUTPUT = 1


class ChallengeState(IntEnum):
    """`EXPIRED` was punished; a challenge that expired unpunished is `NONE` again."""

    NONE = 0
    OPEN = 1
    ANSWERED = 2
    EXPIRED = 3


@dataclass(frozen=True, slots=True)
class FaultParameters:
    """Seconds, 1/10,000 and base units, in the contract's order; the defaults suit a devnet."""

    max_age: int = 86_400
    opening_age: int = 3_600
    response_time: int = 30
    jail: int = 300
    reward_bps: int = 3_000
    weights_bps: int = 7_500
    opening_bps: int = 500
    opening_bond: Nectar = Nectar(ONE_NECTAR)  # noqa: RUF009 — an int

    def words(self) -> tuple[int, ...]:
        """As the contract takes them."""
        return (
            self.max_age,
            self.opening_age,
            self.response_time,
            self.jail,
            self.reward_bps,
            self.weights_bps,
            self.opening_bps,
            self.opening_bond,
        )


@dataclass(frozen=True, slots=True)
class ManifestParts:
    """What a model's manifest root commits to beside its block roots (corolla_core.model.manifest)."""

    name: str
    config_root: Hash32
    front_root: Hash32
    head_root: Hash32


@dataclass(frozen=True, slots=True)
class Payment:
    """The tranche that a session was paid from, and the receipt of that session which the node redeemed with on it."""

    tranche: TrancheId
    head: Receipt


@dataclass(frozen=True, slots=True)
class Punishment:
    """What a proof cost a node: `taken` from its stake, of which the challenger got `reward` and the client `refund`.

    `until` is when the node may serve again; the largest uint64 where it never may.
    """

    mined: Mined
    node: Address
    challenger: Address
    taken: Nectar
    reward: Nectar
    refund: Nectar
    until: UnixTime


@dataclass(frozen=True, slots=True)
class Opening:
    """A challenge on chain: `node` has until `deadline` to show the row at `position` under `root`.

    `index` of `size` is where the row's leaf stands under the root, `tranche` what the work was paid from. `challenger`
    is zero when there is no challenge.
    """

    challenger: Address
    deadline: UnixTime
    state: ChallengeState
    node: Address
    opened_at: UnixTime
    session_id: SessionId
    position: int
    root: Hash32
    index: int
    size: int
    bond: Nectar
    tranche: TrancheId


class Faults(Contract):
    """Proofs act for the sender, who gets the reward. Writes raise TransactionReverted with the contract's reason.

    A proof that names the `payment` for its session has the tranche's payer refunded. A payment that does not hold is
    ignored: the proof is taken all the same, and its `refund` is zero.
    """

    abi_name = "Faults"

    def __init__(self, chain: Chain, sender: TransactionSender | None = None) -> None:
        """ConfigError when the network has no such contract."""
        if chain.network.faults == ZERO_ADDRESS:
            raise ConfigError(f"network {chain.network.name} has no contract of provable faults")
        super().__init__(chain, chain.network.faults, sender)

    # ---- proofs ----

    async def prove_equivocation(
        self, a: SignedReceipt, b: SignedReceipt, *, payment: Payment | None = None
    ) -> Punishment:
        """Two different receipts of one node that continue one receipt of one session."""
        return self._punishment(await self._send("proveEquivocation", *_signed(a), *_signed(b), _paid(payment, a)))

    async def prove_broken_link(
        self, receipt: SignedReceipt, upstream: SignedReceipt, *, payment: Payment | None = None
    ) -> Punishment:
        """A receipt that names an upstream receipt and began from something else than its output."""
        shown = (*_signed(receipt), *_signed(upstream), _paid(payment, receipt))
        return self._punishment(await self._send("proveBrokenLink", *shown))

    async def prove_weights(
        self, receipt: SignedReceipt, version: int, manifest: ManifestParts, *, payment: Payment | None = None
    ) -> Punishment:
        """A receipt whose span, weight root or numeric class its model does not have.

        `version` is one of the model `manifest.name` whose manifest root is the receipt's.
        """
        parts = (manifest.name, manifest.config_root, manifest.front_root, manifest.head_root)
        shown = (*_signed(receipt), version, parts, _paid(payment, receipt))
        return self._punishment(await self._send("proveWeights", *shown))

    # ---- openings ----

    async def challenge_opening(
        self, receipt: SignedReceipt, position: int, side: Side, *, tranche: TrancheId, later: Sequence[Receipt] = ()
    ) -> Hash32:
        """Demand a row; returns the challenge's id. Approves the bond first if needed.

        `later` are the receipts after this one, newest first, up to the head that the node redeemed with on `tranche`.
        """
        bond = (await self.parameters()).opening_bond
        await Token(self.chain, self.sender).ensure_allowance(self.address, bond)
        chained = [each.words() for each in later]
        mined = await self._send("challengeOpening", *_signed(receipt), position, side, tranche, chained)
        for event in self._events(mined, "OpeningChallenged"):
            return Hash32(event.arguments["challengeId"])
        raise ChainError("a challenge left no event")

    async def open(self, challenge: Hash32, row: bytes, branch: Sequence[bytes]) -> Mined:
        """Answer a challenge with the row's exact bytes and its siblings from the leaf up; the bond is the node's."""
        return await self._send("open", challenge, row, list(branch))

    async def expire_opening(self, challenge: Hash32) -> Punishment | None:
        """End a challenge past its deadline; None when it was part of an outage that was punished already."""
        mined = await self._send("expireOpening", challenge)
        for event in self._events(mined, "OpeningExpired"):
            return self._punishment(mined) if event.arguments["punished"] else None
        raise ChainError("an expired challenge left no event")

    def row_in(self, mined: Mined) -> bytes:
        """The row that a transaction opened. ChainError when it opened none."""
        for event in self._events(mined, "OpeningAnswered"):
            return bytes(event.arguments["row"])
        raise ChainError("the transaction opened no row")

    # ---- views ----

    async def opening(self, challenge: Hash32) -> Opening:
        found = await self._read("challenge", challenge)
        challenger, deadline, state, node, opened_at, session, position, root, index, size, bond, tranche = found
        return Opening(
            challenger=challenger,
            deadline=UnixTime(deadline),
            state=ChallengeState(state),
            node=node,
            opened_at=UnixTime(opened_at),
            session_id=SessionId(session),
            position=position,
            root=Hash32(root),
            index=index,
            size=size,
            bond=Nectar(bond),
            tranche=TrancheId(tranche),
        )

    async def parameters(self) -> FaultParameters:
        return FaultParameters(*await self._read("parameters"))

    def _punishment(self, mined: Mined) -> Punishment:
        refund = sum(event.arguments["amount"] for event in self._events(mined, "ClientRefunded"))
        for event in self._events(mined, "FaultPunished"):
            arguments = event.arguments
            return Punishment(
                mined=mined,
                node=arguments["node"],
                challenger=arguments["challenger"],
                taken=Nectar(arguments["amount"]),
                reward=Nectar(arguments["reward"]),
                refund=Nectar(refund),
                until=UnixTime(arguments["until"]),
            )
        raise ChainError("a proof left no event")


def challenge_id(receipt: Hash32, position: int, side: Side) -> Hash32:
    """The id of the challenge for one row: `keccak(abi.encode(receipt hash, position, side))`."""
    return Hash32(keccak(receipt + position.to_bytes(32, "big") + int(side).to_bytes(32, "big")))


def _signed(signed: SignedReceipt) -> tuple[object, bytes]:
    return signed.receipt.words(), signed.signature


def _paid(payment: Payment | None, proof: SignedReceipt) -> tuple[object, ...]:
    """Without a tranche no head holds, so that any receipt will do."""
    return (ZERO_HASH, proof.receipt.words()) if payment is None else (payment.tranche, payment.head.words())
