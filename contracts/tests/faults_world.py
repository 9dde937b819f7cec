"""A deployed Corolla with the contract of provable faults, a published model, and nodes that sign receipts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from brownie import accounts
from eth_utils import keccak
from world import CHAIN_ID, DAY, World, deploy, now, reverts_with, signer

from corolla_core.protocol.ids import ZERO_HASH, Hash32, ModelRoot, SessionId
from corolla_core.protocol.merkle import leaf_hash, merkle_proof, merkle_root
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, WireDtype, row_leaf
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import ONE_NECTAR

FOREVER = 2**64 - 1
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
MAX_AGE, OPENING_AGE, RESPONSE_TIME, JAIL = 10 * DAY, 2 * DAY, 3_600, DAY
REWARD_BPS, WEIGHTS_BPS, OPENING_BPS, BOND = 3_000, 7_500, 500, 2 * ONE_NECTAR
FAULT_PARAMETERS = (MAX_AGE, OPENING_AGE, RESPONSE_TIME, JAIL, REWARD_BPS, WEIGHTS_BPS, OPENING_BPS, BOND)
MODEL, BLOCKS = "smol", [Hash32(keccak(text=f"block {i}")) for i in range(12)]
CONFIG_ROOT, FRONT_ROOT, HEAD_ROOT = (Hash32(keccak(text=part)) for part in ("config", "front", "head"))
MANIFEST = (MODEL, CONFIG_ROOT, FRONT_ROOT, HEAD_ROOT)
CLASSES = [NumericClass.FP32, NumericClass.BF16]
INPUT, OUTPUT = 0, 1
Payment = tuple[bytes, SignedReceipt]


def fault(name: str) -> bytes:
    return name.encode().ljust(32, b"\0")


def manifest_root(name: str = MODEL, blocks: list[Hash32] = BLOCKS) -> ModelRoot:
    """As corolla_core.model.manifest says, which loads torch; docs/spec/vectors.json holds both to one root."""
    about = f'{{"blocks":{len(blocks)},"name":"{name}"}}'.encode()
    leaf = leaf_hash(b"model", len(about).to_bytes(4, "big"), about)
    return ModelRoot(merkle_root([leaf, CONFIG_ROOT, FRONT_ROOT, merkle_root(blocks), HEAD_ROOT]))


def words(receipt: Receipt) -> list[Any]:
    """The receipt as the contract takes it."""
    return list(receipt.words())


def shown(signed: SignedReceipt) -> tuple[list[Any], bytes]:
    """A receipt and its signature, as the contract takes them."""
    return words(signed.receipt), signed.signature


def payment(paid: Payment | None, proof: SignedReceipt) -> tuple[bytes, list[Any]]:
    """What a proof names as paid, as the contract takes it: a tranche and the receipt redeemed with, or nothing."""
    return (bytes(32), words(proof.receipt)) if paid is None else (paid[0], words(paid[1].receipt))


def high_s(signature: bytes) -> bytes:
    """The other signature over the same digest."""
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])


def no_fault(name: str) -> Any:
    """Expects a revert that says that this fault was not shown."""
    return reverts_with(f"NoFault: b'{name}.*")


def sent(function: Any, *arguments: Any, by: int) -> Any:
    """A transaction, once a call has shown that it succeeds: Brownie traces those that revert, which takes seconds."""
    function.call(*arguments, {"from": accounts[by]})
    return function(*arguments, {"from": accounts[by]})


class Work:
    """An honest node's side of one session: it signs a chain of receipts and keeps the rows."""

    def __init__(
        self, node: int, span: Span, *, session: bytes | None = None, draw: Callable[[int], bytes] = os.urandom
    ) -> None:
        self.node, self.span, self.draw = node, span, draw
        self.session = SessionId(session or draw(16))
        self.nonce = draw(32)
        self.receipts: list[SignedReceipt] = []
        self.rows: list[tuple[list[bytes], list[bytes]]] = []

    def chunk(
        self,
        pos: int,
        n: int = 4,
        *,
        upstream: SignedReceipt | None = None,
        inputs: list[bytes] | None = None,
        at: int | None = None,
    ) -> SignedReceipt:
        """The receipt of the next chunk, from the rows of `upstream` where there is one, now or `at` a second."""
        began = (now() if at is None else at) * 1000
        inputs = inputs or [self.draw(24) for _ in range(n)]
        outputs = [self.draw(24) for _ in range(n)]
        receipt = Receipt(
            chain_id=CHAIN_ID,
            epoch=0,
            model_root=manifest_root(),
            span=self.span,
            weight_root=merkle_root(BLOCKS[self.span.start : self.span.end]),
            numeric_class=NumericClass.FP32,
            session_id=self.session,
            client_nonce=self.nonce,
            pos_start=pos,
            n_pos=n,
            wire=WireDtype.FLOAT32,
            batch=1,
            order_root=ZERO_HASH,
            in_root=self.root(pos, inputs),
            out_root=self.root(pos, outputs),
            upstream_receipt_hash=upstream.receipt.hash() if upstream else ZERO_HASH,
            prev_receipt_hash=self.receipts[-1].receipt.hash() if self.receipts else ZERO_HASH,
            t_in=began,
            t_out=began + 5,
        )
        self.receipts.append(receipt.sign(signer(self.node)))
        self.rows.append((inputs, outputs))
        return self.receipts[-1]

    def forge(self, index: int = -1, *, by: int | None = None, **changes: Any) -> SignedReceipt:
        """A receipt of this session with other words in it, signed by the node all the same."""
        return replace(self.receipts[index].receipt, **changes).sign(signer(self.node if by is None else by))

    def opening(self, index: int, position: int, side: int) -> tuple[bytes, list[bytes]]:
        """The row at `position` of a receipt, and its branch."""
        first, rows = self.receipts[index].receipt.pos_start, self.rows[index][side]
        leaves = [row_leaf(self.session, first + i, row) for i, row in enumerate(rows)]
        return rows[position - first], [sibling for _, sibling in merkle_proof(leaves, position - first)]

    def later(self, index: int) -> list[list[Any]]:
        """The receipts after one, newest first."""
        return [words(signed.receipt) for signed in reversed(self.receipts[index + 1 :])]

    def root(self, pos: int, rows: list[bytes]) -> Hash32:
        return merkle_root(row_leaf(self.session, pos + i, row) for i, row in enumerate(rows))


@dataclass
class FaultsWorld(World):
    """As World; nodes are registered by the tests, 8 brings the proofs."""

    faults: Any

    def publish(self, name: str, root: bytes, blocks: list[Hash32], classes: list[NumericClass], *, by: int = 0) -> Any:
        hashes = [keccak(text=each.value) for each in classes]
        return self.models.publish(name, root, blocks, hashes, {"from": accounts[by]})

    def prove_fork(self, a: SignedReceipt, b: SignedReceipt, *, paid: Payment | None = None, by: int = 8) -> Any:
        return sent(self.faults.proveEquivocation, *shown(a), *shown(b), payment(paid, a), by=by)

    def prove_link(
        self, receipt: SignedReceipt, upstream: SignedReceipt, *, paid: Payment | None = None, by: int = 8
    ) -> Any:
        return sent(self.faults.proveBrokenLink, *shown(receipt), *shown(upstream), payment(paid, receipt), by=by)

    def prove_weights(
        self,
        receipt: SignedReceipt,
        version: int = 1,
        manifest: tuple[Any, ...] = MANIFEST,
        *,
        paid: Payment | None = None,
        by: int = 8,
    ) -> Any:
        return sent(self.faults.proveWeights, *shown(receipt), version, manifest, payment(paid, receipt), by=by)

    def redeem_with(self, payee: int, head: Hash32, amount: int = 1_000, *, by: int = 1) -> bytes:
        """Has the node paid by account `by` with a voucher over `head`; returns the tranche."""
        tranche = self.open(by, {payee: max(amount, ONE_NECTAR)})
        self.redeem(self.item(tranche, payee, amount, head=head, by=by))
        return tranche.id

    def challenge(
        self, work: Work, index: int, position: int, side: int, tranche: bytes, *, by: int = 8, **changes: Any
    ) -> Any:
        """Demands a row of the session's receipt `index`; the caller has what the bond takes."""
        signed = changes.get("signed", work.receipts[index])
        later = changes.get("later", work.later(index))
        self.token.transfer(accounts[by], BOND, {"from": accounts[0]})
        self.token.approve(self.faults, BOND, {"from": accounts[by]})
        return sent(self.faults.challengeOpening, *shown(signed), position, side, tranche, later, by=by)

    def rich(self, node: int, amount: int) -> Any:
        """The node's account, with so many tokens that the registry may take."""
        self.token.transfer(accounts[node], amount, {"from": accounts[0]})
        self.token.approve(self.registry, amount, {"from": accounts[node]})
        return accounts[node]

    def stake_of(self, node: int) -> int:
        record = self.registry.nodeOf(accounts[node])
        return int(record["stake"] + record["unbonding"])

    def jailed_until(self, node: int) -> int:
        return int(self.registry.nodeOf(accounts[node])["jailedUntil"])


def deploy_faults(project: Any, deployer: Any) -> FaultsWorld:
    """Everything, and the model `MODEL` published by the deployer."""
    made = add_faults(project, deployer, deploy(project, deployer))
    hashes = [keccak(text=each.value) for each in CLASSES]
    made.models.publish(MODEL, manifest_root(), BLOCKS, hashes, {"from": deployer})
    return made


def add_faults(project: Any, deployer: Any, world: World) -> FaultsWorld:
    """The contract beside those of `world`, with its roles."""
    contracts = (world.token, world.registry, world.models, world.escrow, world.timelock)
    faults = deployer.deploy(project.Faults, *contracts, FAULT_PARAMETERS)
    for role in (world.registry.SLASHER_ROLE(), world.registry.JAILER_ROLE()):
        world.registry.grantRole(role, faults, {"from": deployer})
    return FaultsWorld(**{field.name: getattr(world, field.name) for field in fields(World)}, faults=faults)
