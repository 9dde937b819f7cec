"""The receipts a node signed in one session, put in order; and whatever in them gives the node away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, SessionId
from corolla_core.protocol.receipt import SignedReceipt


@dataclass(frozen=True, slots=True)
class ChainKey:
    """What all receipts of one chain share: a node signs one chain for each nonce it was opened with."""

    signer: Address
    session: SessionId
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Fork:
    """Two different receipts that follow the same one: the node equivocated, and either may be shown on chain."""

    first: SignedReceipt
    second: SignedReceipt

    @property
    def node(self) -> Address:
        return self.first.signer()

    @property
    def receipts(self) -> tuple[SignedReceipt, ...]:
        return self.first, self.second


@dataclass(frozen=True, slots=True)
class Linked:
    """`chain` runs from the first receipt on without a gap, up to the first fork; `loose` are those it does not reach
    (something between was withheld, or lies beyond a fork)."""

    key: ChainKey
    chain: tuple[SignedReceipt, ...]
    forks: tuple[Fork, ...] = ()
    loose: tuple[SignedReceipt, ...] = ()

    @property
    def head(self) -> Hash32:
        """What the next receipt must refer to."""
        return self.chain[-1].receipt.hash() if self.chain else ZERO_HASH


def link(receipts: Iterable[SignedReceipt]) -> list[Linked]:
    """Every chain among `receipts`, in the order of their keys. Raises InvalidSignature.

    The order they come in does not matter, and one that is given twice counts once.
    """
    by_key: dict[ChainKey, dict[Hash32, SignedReceipt]] = {}
    for signed in receipts:
        receipt = signed.receipt
        key = ChainKey(signed.signer(), receipt.session_id, receipt.client_nonce)
        by_key.setdefault(key, {}).setdefault(receipt.hash(), signed)
    ordered = sorted(by_key.items(), key=lambda item: (item[0].signer, item[0].session, item[0].nonce))
    return [_link(key, found) for key, found in ordered]


def _link(key: ChainKey, found: dict[Hash32, SignedReceipt]) -> Linked:
    following: dict[Hash32, list[Hash32]] = {}
    for hash_ in sorted(found):
        following.setdefault(found[hash_].receipt.prev_receipt_hash, []).append(hash_)
    forks = tuple(Fork(found[hashes[0]], found[other]) for hashes in following.values() for other in hashes[1:])
    chain: list[SignedReceipt] = []
    reached: set[Hash32] = set()
    at = ZERO_HASH
    while len(following.get(at, ())) == 1:
        at = following[at][0]
        chain.append(found[at])
        reached.add(at)
    loose = tuple(found[hash_] for hash_ in sorted(found.keys() - reached))
    return Linked(key, tuple(chain), forks, loose)
