"""What a node's own signatures convict it of: pure comparisons, the same ones the contract makes (IFaults.sol)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, ModelRoot
from corolla_core.protocol.merkle import merkle_root
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt
from corolla_core.protocol.receipt_chain import Fork
from corolla_core.protocol.units import UnixTime


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """A receipt that names `upstream` as where its input came from, and began from something else."""

    receipt: SignedReceipt
    upstream: SignedReceipt

    @property
    def node(self) -> Address:
        return self.receipt.signer()

    @property
    def receipts(self) -> tuple[SignedReceipt, ...]:
        return self.receipt, self.upstream


@dataclass(frozen=True, slots=True)
class FalseWeights:
    """A receipt for blocks, weights or a numeric class that its model does not have."""

    receipt: SignedReceipt

    @property
    def node(self) -> Address:
        return self.receipt.signer()

    @property
    def receipts(self) -> tuple[SignedReceipt, ...]:
        return (self.receipt,)


ProvableFault = Fork | BrokenLink | FalseWeights
"""Each has the `node` it convicts, and the `receipts` that prove it, the first of them always that node's."""


def kind(fault: ProvableFault) -> str:
    """As people read it: "fork", "broken link" or "false weights"."""
    match fault:
        case Fork():
            return "fork"
        case BrokenLink():
            return "broken link"
        case FalseWeights():
            return "false weights"


@dataclass(frozen=True, slots=True)
class Publication:
    """A model as the chain knows it: its blocks' roots, the classes of all versions that have them, and the first of
    those versions."""

    model_root: ModelRoot
    block_roots: tuple[Hash32, ...]
    classes: frozenset[NumericClass]
    version: int
    published_at: UnixTime


def broken_links(receipts: Iterable[SignedReceipt]) -> list[BrokenLink]:
    """Every broken link between these receipts of one session, whoever signed them."""
    known = {signed.receipt.hash(): signed for signed in receipts}
    pairs = ((signed, known.get(signed.receipt.upstream_receipt_hash)) for signed in known.values())
    return [BrokenLink(lower, upper) for lower, upper in pairs if upper is not None and _breaks(lower.receipt, upper)]


def unmet(receipts: Sequence[SignedReceipt], known: Collection[SignedReceipt]) -> list[Hash32]:
    """The upstream receipts that `receipts` name and that are not among `known`, in order."""
    there = {signed.receipt.hash() for signed in known} | {ZERO_HASH}
    named = dict.fromkeys(signed.receipt.upstream_receipt_hash for signed in receipts)
    return [hash_ for hash_ in named if hash_ not in there]


def claims_false_weights(receipt: Receipt, model: Publication) -> bool:
    """Whether a receipt is of this model and claims a span beyond its blocks, a weight root that is not the root over
    that span's blocks, or, for work begun since the publication, a class that was not published."""
    span = receipt.span
    if receipt.model_root != model.model_root:
        return False
    if span.end > len(model.block_roots) or receipt.weight_root != merkle_root(
        model.block_roots[span.start : span.end]
    ):
        return True
    return receipt.t_in // 1000 >= model.published_at and receipt.numeric_class not in model.classes


def _breaks(receipt: Receipt, upstream: SignedReceipt) -> bool:
    theirs = upstream.receipt
    stated = (theirs.chain_id, theirs.session_id, theirs.pos_start, theirs.n_pos, theirs.span.end)
    ours = (receipt.chain_id, receipt.session_id, receipt.pos_start, receipt.n_pos, receipt.span.start)
    return stated == ours and theirs.out_root != receipt.in_root
