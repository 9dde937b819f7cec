"""The receipts of one node in one session: each signed by it, each linked to the one before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from corolla_core.protocol.errors import InvalidSignature, PeerMisbehaved
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, ModelRoot, SessionId
from corolla_core.protocol.merkle import Buffer, merkle_root
from corolla_core.protocol.receipt import Receipt, SignedReceipt, WireDtype, row_leaf
from corolla_core.protocol.reordering import Reordering, order_root
from corolla_core.protocol.span import Span

#: Single positions that a witness keeps as they came, to hash them when a receipt says something of them.
_MAX_UNHASHED = 64
#: Rows a witness remembers; beyond it (a receipt that never came) the oldest go.
_MAX_ROWS = 4096
CLOCKS_DIFFER = 60.0
"""Seconds between when a receipt says it was signed and when it comes: proofs expire by what it says."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What every receipt of one node in one session must say."""

    signer: Address
    chain_id: int
    model_root: ModelRoot
    span: Span
    weight_root: Hash32
    session: SessionId
    client_nonce: bytes
    wire: WireDtype
    batch: int


class Orders:
    """The reorderings a session asked its nodes for, by position: what a receipt says of them can be checked."""

    def __init__(self) -> None:
        self._asked: dict[int, Reordering] = {}
        self._void_below = 0

    def ask(self, reordering: Reordering) -> None:
        self._asked[reordering.position] = reordering

    def crop(self, position: int, *, end: int) -> None:
        """Positions `[position, end)` are void. Receipts for them may still come, so nothing is said any more of
        them."""
        self._asked = {p: asked for p, asked in self._asked.items() if p < position}
        self._void_below = max(self._void_below, end)

    def root(self, start: int, count: int, *, replayed: int) -> Hash32 | None:
        """What a node signs that got the positions below `replayed` as they had become by then; None where nothing can
        be said."""
        if start < self._void_below:
            return None
        live = range(max(start, replayed), start + count)
        return order_root([self._asked[position] for position in sorted(self._asked.keys() & live)])


class Witness:
    """Rows the client itself sent or received: what a receipt says of them can be checked.

    A single position is hashed only when it is asked for: the next step does not wait for it.
    """

    def __init__(self, session: SessionId) -> None:
        self._session = session
        self._leaves: dict[int, Hash32] = {}
        self._unhashed: list[tuple[int, Buffer, int, int]] = []
        self._void_below = 0

    def saw(self, position: int, payload: Buffer, *, batch: int, tokens: int) -> None:
        """A `[batch, tokens, hidden]` tensor travelled, its first row at `position`. Do not change `payload`."""
        self._unhashed.append((position, payload, batch, tokens))
        if tokens > 1 or len(self._unhashed) > _MAX_UNHASHED:
            self._hash()

    def crop(self, position: int, *, end: int) -> None:
        """Rows in `[position, end)` are void. Receipts for them may still come, so nothing is said any more of the
        positions they had."""
        self._hash()
        self._leaves = {p: leaf for p, leaf in self._leaves.items() if p < position}
        self._void_below = max(self._void_below, end)

    def root(self, start: int, count: int) -> Hash32 | None:
        """The root over these rows, or None where not all of them were seen."""
        self._hash()
        if count > len(self._leaves):
            return None
        found = [self._leaves.get(p) for p in range(start, start + count)]
        leaves = [leaf for leaf in found if leaf is not None]
        return merkle_root(leaves) if len(leaves) == count else None

    def _hash(self) -> None:
        unhashed, self._unhashed = self._unhashed, []
        for seen in unhashed:
            self._hash_one(*seen)

    def _hash_one(self, position: int, payload: Buffer, batch: int, tokens: int) -> None:
        data = memoryview(payload).cast("B")
        size = data.nbytes // (batch * tokens)
        for token in range(max(0, self._void_below - position), tokens):
            rows = [data[(row * tokens + token) * size :][:size] for row in range(batch)]
            row = rows[0] if batch == 1 else b"".join(rows)
            self._leaves.pop(position + token, None)
            self._leaves[position + token] = row_leaf(self._session, position + token, row)
        while len(self._leaves) > _MAX_ROWS:
            del self._leaves[next(iter(self._leaves))]


@dataclass(slots=True)
class ReceiptChain:
    """`sent` is a witness of the node's input rows where the client sent them, `received` of its outputs. `replayed` is
    up to where the node was given the history of the session rather than its steps. `clock` gives Unix seconds."""

    terms: Terms
    orders: Orders
    clock: Callable[[], float]
    opened: float
    sent: Witness | None = None
    received: Witness | None = None
    head: Hash32 = ZERO_HASH
    end: int = 0
    replayed: int = 0
    kept: list[SignedReceipt] = field(default_factory=list)

    def add(self, signed: SignedReceipt) -> Receipt:
        """What it says, where it is the next of this chain and true as far as the client can see. Raises
        PeerMisbehaved.

        One of this session that the node signed is kept even then: what is refused is what convicts.
        """
        peer = self.terms.signer
        try:
            signer = signed.signer()
        except InvalidSignature as error:
            raise PeerMisbehaved(f"sent a receipt that nobody signed: {error}", peer=peer) from None
        receipt, terms = signed.receipt, self.terms
        if signer == peer and receipt.session_id == terms.session:
            self.kept.append(signed)
        stated = (receipt.chain_id, receipt.model_root, receipt.span, receipt.weight_root)
        agreed = (terms.chain_id, terms.model_root, terms.span, terms.weight_root)
        if signer != peer or stated != agreed:
            raise PeerMisbehaved("sent a receipt for something else", peer=peer)
        if receipt.session_id != terms.session or receipt.client_nonce != terms.client_nonce:
            raise PeerMisbehaved("sent a receipt of another session", peer=peer)
        if (receipt.wire, receipt.batch) != (terms.wire, terms.batch):
            raise PeerMisbehaved("sent a receipt for rows of another dtype or batch", peer=peer)
        order = self.orders.root(receipt.pos_start, receipt.n_pos, replayed=self.replayed)
        if order is not None and receipt.order_root != order:
            raise PeerMisbehaved("signed for sequences reordered otherwise than it was asked to", peer=peer)
        ago = self.clock() - receipt.t_out / 1000
        if abs(ago) > CLOCKS_DIFFER or receipt.t_in / 1000 < self.opened - CLOCKS_DIFFER:
            raise PeerMisbehaved(
                f"dates its receipt {ago:.0f} s ago: its clock, or this machine's, is wrong", peer=peer
            )
        if receipt.prev_receipt_hash != self.head or receipt.pos_start > self.end:
            raise PeerMisbehaved("sent a receipt that does not follow the one before", peer=peer)
        for witness, root in ((self.sent, receipt.in_root), (self.received, receipt.out_root)):
            seen = witness.root(receipt.pos_start, receipt.n_pos) if witness is not None else None
            if seen is not None and seen != root:
                raise PeerMisbehaved("signed for other rows than it was sent or sent", peer=peer)
        self.head = receipt.hash()
        self.end = receipt.pos_start + receipt.n_pos
        return receipt

    def take(self) -> list[SignedReceipt]:
        """The receipts gathered since the last call."""
        taken, self.kept = self.kept, []
        return taken
