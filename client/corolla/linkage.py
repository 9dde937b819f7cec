"""What neighbours signed of the rows between them: a pure comparison, made as receipts arrive.

What a node sent under `out_root` is what the next one got under `in_root`. Where the two differ one of them lies, and
nobody can say yet which: a validator can, as both are bound by what they signed. The same where a node signs over a
receipt that the one before did not send here: that one may have shown its two neighbours different ones. For the
session the node before is out; a node that finds fault with a second one is out itself, lest it burn every neighbour.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence

from corolla.blame import Replace
from corolla_core.protocol.errors import LinkBroken, PeerMisbehaved
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32
from corolla_core.protocol.receipt import Receipt

_MAX_SEEN = 1024
_UNSENT = "did not send here what the next node signs over"

_Chunk = tuple[int, int]
_Node = tuple[Address, Receipt]


class Linkage:
    """The last receipts of each node of a session."""

    def __init__(self) -> None:
        self._seen: dict[Address, OrderedDict[_Chunk, Receipt]] = {}
        self._unmet: dict[Address, OrderedDict[_Chunk, Receipt]] = {}
        self._accused: Counter[Address] = Counter()
        self._void_below = 0

    def void(self, end: int) -> None:
        """Rows below `end` were dropped, or are computed again by another node, and need not be the same ones: nothing
        is said any more of chunks that begin there."""
        self._void_below = max(self._void_below, end)

    def check(self, account: Address, receipt: Receipt, chain: Sequence[Address]) -> Replace | None:
        """Who is to be replaced now that `account` has sent this, if anybody. `chain` are the nodes that stand, in
        order."""
        chunk = (receipt.pos_start, receipt.n_pos)
        if receipt.upstream_receipt_hash != ZERO_HASH and receipt.span.start == 0:
            return _misbehaved(account, "signs over a node before it, and is the first")
        if account not in chain or receipt.pos_start < self._void_below:
            return None
        _remember(self._seen, account, chunk, receipt)
        place = chain.index(account)
        if place:
            before = chain[place - 1]
            theirs = _of(self._seen, before).get(chunk)
            if theirs is None and receipt.upstream_receipt_hash != ZERO_HASH:
                _remember(self._unmet, account, chunk, receipt)
            elif theirs is not None and theirs.span.end == receipt.span.start:
                found = self._compare((before, theirs), (account, receipt))
                if found is not None:
                    return found
        if place + 1 < len(chain):
            return self._meet((account, receipt), chain[place + 1])
        return None

    def _meet(self, upper: _Node, after: Address) -> Replace | None:
        """A node's receipt has come after the next one's."""
        chunk = (upper[1].pos_start, upper[1].n_pos)
        unmet = _of(self._unmet, after)
        unmet.pop(chunk, None)
        theirs = _of(self._seen, after).get(chunk)
        if theirs is not None and theirs.span.start == upper[1].span.end:
            return self._compare(upper, (after, theirs))
        for start, count in list(unmet):
            if start < self._void_below:
                del unmet[start, count]
            elif start + count <= upper[1].pos_start:  # a node's receipts come in order: that one will not come
                return self._either(upper[0], after, unmet[start, count].upstream_receipt_hash, _UNSENT)
        return None

    def _compare(self, upper: _Node, lower: _Node) -> Replace | None:
        (before, theirs), (account, ours) = upper, lower
        same = theirs.out_root == ours.in_root
        if ours.upstream_receipt_hash != ZERO_HASH:
            if ours.upstream_receipt_hash != theirs.hash():
                return self._either(before, account, ours.upstream_receipt_hash, _UNSENT)
            return None if same else _misbehaved(account, "signs over a receipt for other rows than its own")
        if same:
            return None
        return self._either(before, account, theirs.hash(), "signed for other rows than the next node got")

    def _either(self, before: Address, account: Address, receipt: Hash32, text: str) -> Replace:
        """One of two lies about this receipt."""
        self._accused[account] += 1
        if self._accused[account] > 1:
            return _misbehaved(account, "contradicts every node before it")
        return Replace(before, LinkBroken(text, peer=before, receipt=receipt))


def _of(kept: dict[Address, OrderedDict[_Chunk, Receipt]], account: Address) -> OrderedDict[_Chunk, Receipt]:
    return kept.setdefault(account, OrderedDict())


def _remember(
    kept: dict[Address, OrderedDict[_Chunk, Receipt]], account: Address, chunk: _Chunk, receipt: Receipt
) -> None:
    of_node = _of(kept, account)
    of_node[chunk] = receipt
    while len(of_node) > _MAX_SEEN:
        of_node.popitem(last=False)


def _misbehaved(account: Address, text: str) -> Replace:
    return Replace(account, PeerMisbehaved(text, peer=account))
