"""Writes docs/spec/vectors.json, the test vectors that Python and Solidity must both pass.

    python docs/spec/make_vectors.py           write it
    python docs/spec/make_vectors.py --check   fail if it differs from what corolla_core gives

Everything is fixed: keys, chain id and addresses are arbitrary and public. A number that may exceed 2**53 is a decimal
string, bytes are 0x hex.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from eth_utils.crypto import keccak

from corolla_core.model.manifest import Manifest
from corolla_core.protocol.ids import ZERO_ADDRESS, ZERO_HASH, Address, Hash32, ModelRoot, TrancheId, address
from corolla_core.protocol.ids import session_id as as_session_id
from corolla_core.protocol.merkle import merkle_proof, merkle_root
from corolla_core.protocol.receipt import NumericClass, Receipt, WireDtype, row_leaf
from corolla_core.protocol.reordering import Reordering, order_root
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumNode, SumTree, hash_leaf, hash_pair
from corolla_core.protocol.units import MAX_UINT128, Nectar
from corolla_core.protocol.voucher import ESCROW_NAME, ESCROW_VERSION, Voucher, escrow_domain, tranche_id

PATH = Path(__file__).with_name("vectors.json")
SIGNER = Signer(keccak(text="corolla vector signer"))
CHAIN_ID, ESCROW = 31337, Address("0x5FbDB2315678afecb367f032d93F642f64180aa3")
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def named(text: str) -> Hash32:
    return Hash32(keccak(text=text))


def payee(number: int) -> Address:
    return address(keccak(text=f"payee {number}")[12:])


def show(value: bytes) -> str:
    return "0x" + value.hex()


def domains() -> list[dict[str, Any]]:
    cases = [(1337, ESCROW), (CHAIN_ID, ESCROW), (1, ZERO_ADDRESS), (2**64 - 1, payee(0))]
    return [
        {
            "name": ESCROW_NAME,
            "version": ESCROW_VERSION,
            "chain_id": str(chain_id),
            "verifying_contract": escrow,
            "separator": show(escrow_domain(chain_id, escrow).separator),
        }
        for chain_id, escrow in cases
    ]


def tranche_ids() -> list[dict[str, Any]]:
    cases = [(1337, ESCROW, payee(1), 0), (1, ESCROW, payee(1), 1), (1337, payee(2), payee(3), 2**256 - 1)]
    return [
        {"chain_id": str(c), "escrow": e, "payer": p, "nonce": str(n), "tranche_id": show(tranche_id(c, e, p, n))}
        for c, e, p, n in cases
    ]


def vouchers() -> list[dict[str, Any]]:
    domain = escrow_domain(CHAIN_ID, ESCROW)
    cases = [
        Voucher(TrancheId(named("tranche")), payee(1), Nectar(0), ZERO_HASH),
        Voucher(TrancheId(named("tranche")), payee(1), Nectar(1), named("receipt")),
        Voucher(TrancheId(bytes(32)), ZERO_ADDRESS, Nectar(10**18), named("receipt 2")),
        Voucher(TrancheId(b"\xff" * 32), payee(2), Nectar(MAX_UINT128), Hash32(b"\xff" * 32)),
    ]
    shown = []
    for voucher in cases:
        signature = voucher.sign(domain, SIGNER).signature
        s = int.from_bytes(signature[32:64], "big")
        high_s = signature[:32] + (ORDER - s).to_bytes(32, "big") + bytes([55 - signature[64]])
        shown.append(
            {
                "tranche_id": show(voucher.tranche_id),
                "payee": voucher.payee,
                "cumulative": str(voucher.cumulative),
                "receipt_head": show(voucher.receipt_head),
                "struct_hash": show(voucher.struct_hash()),
                "digest": show(voucher.digest(domain)),
                "signature": show(signature),
                "high_s_signature": show(high_s),
            }
        )
    return shown


def node(value: SumNode) -> dict[str, str]:
    return {"hash": show(value.hash), "sum": str(value.sum)}


def proof(
    why: str, valid: bool, root: SumNode, leaf: tuple[Address, int], index: int, siblings: list[SumNode]
) -> dict[str, Any]:
    return {
        "why": why,
        "valid": valid,
        "root": node(root),
        "payee": leaf[0],
        "cap": str(leaf[1]),
        "index": index,
        "siblings": [node(sibling) for sibling in siblings],
    }


def sum_trees() -> dict[str, Any]:
    trees, proofs = [], []
    for size in (1, 2, 3, 5, 8, 20):
        leaves = [Leaf(payee(i), Nectar(10**18 * (i + 1) + i)) for i in range(size)]
        tree = SumTree(leaves)
        trees.append(
            {
                "leaves": [{"payee": leaf.payee, "cap": str(leaf.cap), **node(hash_leaf(leaf))} for leaf in leaves],
                "root": node(tree.root),
            }
        )
        for index in {0, size // 2, size - 1}:
            leaf = leaves[index]
            branch = list(tree.proof(index).siblings)
            proofs.append(proof("a leaf of the tree", True, tree.root, (leaf.payee, leaf.cap), index, branch))
    return {"trees": trees, "proofs": proofs + forgeries()}


def forgeries() -> list[dict[str, Any]]:
    """Branches no verifier may accept, each next to the honest one it was made from."""
    leaves = [Leaf(payee(i), Nectar(cap)) for i, cap in enumerate((100, 200, 300, 400))]
    tree = SumTree(leaves)
    root, first = tree.root, (leaves[0].payee, 100)
    a, b = tree.proof(0).siblings
    bad: list[tuple[str, SumNode, tuple[Address, int], int, list[SumNode]]] = [
        ("a raised cap", root, (first[0], 101), 0, [a, b]),
        ("another payee", root, (payee(9), 100), 0, [a, b]),
        ("another index", root, first, 1, [a, b]),
        ("an index beyond the branch", root, first, 4, [a, b]),
        ("a cap moved from the sibling, same total", root, (first[0], 150), 0, [SumNode(a.hash, 150), b]),
        ("an omitted sum: the sibling claims nothing", root, first, 0, [SumNode(a.hash, 0), b]),
        ("a total larger than what is locked", SumNode(root.hash, root.sum + 1), first, 0, [a, b]),
        ("a total smaller than what is locked", SumNode(root.hash, root.sum - 1), first, 0, [a, b]),
        ("a branch cut short", root, first, 0, [a]),
        ("a branch too long", root, first, 0, [a, b, SumNode(ZERO_HASH, 0)]),
        ("siblings in the wrong order", root, first, 0, [b, a]),
        ("a sum that wraps around uint128", root, (first[0], MAX_UINT128), 0, [SumNode(a.hash, 1), b]),
        ("a branch deeper than any tree", root, first, 0, [a, b] + [SumNode(ZERO_HASH, 0)] * 31),
    ]
    # An inner node passed off as a leaf, and a leaf passed off as the root of a tree it is not the whole of.
    inner = hash_pair(hash_leaf(leaves[0]), hash_leaf(leaves[1]))
    bad.append(("an inner node as a leaf", root, (address(inner.hash[12:]), inner.sum), 0, [b]))
    bad.append(("a leaf as the root", hash_leaf(leaves[1]), first, 0, []))
    bad.append(("padding as a payee", root, (ZERO_ADDRESS, 1), 0, [a, b]))
    honest = [proof("the honest branch", True, root, first, 0, [a, b])]
    return honest + [proof(why, False, *rest) for why, *rest in bad]  # type: ignore[arg-type]


def merkle() -> list[dict[str, Any]]:
    session = as_session_id(b"0123456789abcdef")
    shown = []
    for size in (1, 2, 3, 7):
        rows = [bytes([i]) * (4 + i) for i in range(size)]
        leaves = [row_leaf(session, 100 + i, row) for i, row in enumerate(rows)]
        index = size - 1
        shown.append(
            {
                "session_id": show(session),
                "first_position": 100,
                "rows": [show(row) for row in rows],
                "leaves": [show(leaf) for leaf in leaves],
                "root": show(merkle_root(leaves)),
                "index": index,
                "branch": [
                    {"on_left": on_left, "hash": show(sibling)} for on_left, sibling in merkle_proof(leaves, index)
                ],
            }
        )
    return shown


def manifests() -> list[dict[str, Any]]:
    shown = []
    for name, size in (("one", 1), ("smollm2-135m-instruct", 30), ("A model of 13 blocks", 13)):
        blocks = tuple(named(f"{name} block {i}") for i in range(size))
        manifest = Manifest(name, named("config"), named("front"), blocks, named("head"))
        spans = {(0, size), (size // 2, size), (0, 1), (size // 3, size // 3 + 1)}
        shown.append(
            {
                "name": name,
                "config_root": show(manifest.config_root),
                "front_root": show(manifest.front_root),
                "block_roots": [show(root) for root in blocks],
                "head_root": show(manifest.head_root),
                "root": show(manifest.root),
                "spans": [
                    {"start": start, "end": end, "weight_root": show(manifest.weight_root(Span(start, end)))}
                    for start, end in sorted(spans)
                ],
            }
        )
    return shown


def receipts() -> list[dict[str, Any]]:
    def receipt(numeric_class: NumericClass, wire: WireDtype, small: bool) -> Receipt:
        return Receipt(
            chain_id=1337 if small else 2**64 - 1,
            epoch=0 if small else 2**64 - 1,
            model_root=ModelRoot(named("model")),
            span=Span(0, 1) if small else Span(10, 20),
            weight_root=named("weights"),
            numeric_class=numeric_class,
            session_id=as_session_id(b"0123456789abcdef"),
            client_nonce=named("nonce"),
            pos_start=0 if small else 2**64 - 1,
            n_pos=1 if small else 2**64 - 1,
            wire=wire,
            batch=1 if small else 2**64 - 1,
            order_root=ZERO_HASH if small else named("order"),
            in_root=named("in"),
            out_root=named("out"),
            upstream_receipt_hash=ZERO_HASH if small else named("upstream"),
            prev_receipt_hash=ZERO_HASH if small else named("previous"),
            t_in=0,
            t_out=0 if small else 2**64 - 1,
        )

    shown, wires = [], list(WireDtype)
    for index, numeric_class in enumerate(NumericClass):
        value = receipt(numeric_class, wires[index % len(wires)], small=index % 2 == 0)
        data: dict[str, Any] = {}
        for field in fields(value):
            item = getattr(value, field.name)
            if isinstance(item, Span):
                data |= {"span_start": str(item.start), "span_end": str(item.end)}
            elif isinstance(item, StrEnum):
                data |= {field.name: item.value}
            else:
                data[field.name] = show(item) if isinstance(item, bytes) else str(item)
        signature = value.sign(SIGNER).signature
        shown.append({**data, "hash": show(value.hash()), "signature": show(signature)})
    return shown


def orders() -> list[dict[str, Any]]:
    cases = [
        (),
        (Reordering(0, (0,)),),
        (Reordering(7, (1, 0)), Reordering(9, (1, 1))),
        (Reordering(2**32, (3, 2, 1, 0)),),
    ]
    return [
        {
            "reorderings": [{"position": each.position, "rows": list(each.rows)} for each in case],
            "root": show(order_root(case)),
        }
        for case in cases
    ]


def build() -> dict[str, Any]:
    return {
        "about": "Made by docs/spec/make_vectors.py; Python and Solidity must both agree with every line.",
        "signer": SIGNER.address,
        "domains": domains(),
        "tranche_ids": tranche_ids(),
        "voucher_domain": {"chain_id": CHAIN_ID, "verifying_contract": ESCROW},
        "vouchers": vouchers(),
        "sum_trees": sum_trees(),
        "sha256_merkle": merkle(),
        "manifests": manifests(),
        "receipts": receipts(),
        "orders": orders(),
    }


def main() -> int:
    text = json.dumps(build(), indent=1) + "\n"
    if "--check" in sys.argv:
        if PATH.read_text() != text:
            sys.stderr.write(f"{PATH} differs: run python {__file__}\n")
            return 1
    else:
        PATH.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
