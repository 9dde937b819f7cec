"""The shared vectors against corolla_core and eth-account. Brownie holds the contracts to the same file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak

from corolla_core.protocol.errors import InvalidProof, InvalidSignature
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, SessionId, TrancheId
from corolla_core.protocol.merkle import leaf_hash, merkle_root, verify_merkle
from corolla_core.protocol.receipt import NumericClass, Receipt, WireDtype, row_leaf
from corolla_core.protocol.reordering import Reordering, order_root
from corolla_core.protocol.signature import recover
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumNode, SumProof, SumTree, hash_leaf, verify
from corolla_core.protocol.units import Nectar
from corolla_core.protocol.voucher import Voucher, escrow_domain, tranche_id

SPEC = Path(__file__).parents[2] / "docs" / "spec"
VECTORS: dict[str, Any] = json.loads((SPEC / "vectors.json").read_text())


def raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def sum_node(value: dict[str, str]) -> SumNode:
    return SumNode(Hash32(raw(value["hash"])), int(value["sum"]))


def test_the_file_is_what_the_generator_writes() -> None:
    subprocess.run([sys.executable, str(SPEC / "make_vectors.py"), "--check"], check=True, timeout=60)


@pytest.mark.parametrize("vector", VECTORS["domains"], ids=lambda v: v["chain_id"])
def test_domain_separators(vector: dict[str, str]) -> None:
    domain = escrow_domain(int(vector["chain_id"]), Address(vector["verifying_contract"]))
    assert (domain.name, domain.version) == (vector["name"], vector["version"])
    assert domain.separator == raw(vector["separator"])


@pytest.mark.parametrize("vector", VECTORS["tranche_ids"], ids=lambda v: v["nonce"])
def test_tranche_ids(vector: dict[str, str]) -> None:
    made = tranche_id(
        int(vector["chain_id"]), Address(vector["escrow"]), Address(vector["payer"]), int(vector["nonce"])
    )
    assert made == raw(vector["tranche_id"])


@pytest.mark.parametrize("vector", VECTORS["vouchers"], ids=lambda v: v["cumulative"])
def test_voucher_digests_and_signatures_agree_with_eth_account(vector: dict[str, str]) -> None:
    where = VECTORS["voucher_domain"]
    domain = escrow_domain(where["chain_id"], Address(where["verifying_contract"]))
    voucher = Voucher(
        TrancheId(raw(vector["tranche_id"])),
        Address(vector["payee"]),
        Nectar(int(vector["cumulative"])),
        Hash32(raw(vector["receipt_head"])),
    )
    message = encode_typed_data(
        {"name": domain.name, "version": domain.version, "chainId": where["chain_id"]}
        | {"verifyingContract": where["verifying_contract"]},
        {
            "Voucher": [
                {"name": "trancheId", "type": "bytes32"},
                {"name": "payee", "type": "address"},
                {"name": "cumulative", "type": "uint128"},
                {"name": "receiptHead", "type": "bytes32"},
            ]
        },
        {
            "trancheId": voucher.tranche_id,
            "payee": voucher.payee,
            "cumulative": voucher.cumulative,
            "receiptHead": voucher.receipt_head,
        },
    )
    assert message.header == domain.separator
    assert voucher.struct_hash() == raw(vector["struct_hash"]) == message.body
    assert (
        voucher.digest(domain)
        == raw(vector["digest"])
        == keccak(b"\x19" + message.version + message.header + message.body)
    )
    signature = raw(vector["signature"])
    assert recover(voucher.digest(domain), signature) == VECTORS["signer"]
    assert Account.recover_message(message, signature=signature) == VECTORS["signer"]
    with pytest.raises(InvalidSignature):
        recover(voucher.digest(domain), raw(vector["high_s_signature"]))


@pytest.mark.parametrize("vector", VECTORS["sum_trees"]["trees"], ids=lambda v: str(len(v["leaves"])))
def test_sum_tree_roots(vector: dict[str, Any]) -> None:
    leaves = [Leaf(Address(leaf["payee"]), Nectar(int(leaf["cap"]))) for leaf in vector["leaves"]]
    assert [hash_leaf(leaf) for leaf in leaves] == [sum_node(leaf) for leaf in vector["leaves"]]
    assert SumTree(leaves).root == sum_node(vector["root"])


@pytest.mark.parametrize("vector", VECTORS["sum_trees"]["proofs"], ids=lambda v: v["why"])
def test_sum_proofs_and_forgeries(vector: dict[str, Any]) -> None:
    root = sum_node(vector["root"])
    leaf = Leaf(Address(vector["payee"]), Nectar(int(vector["cap"])))
    proof = SumProof(vector["index"], tuple(sum_node(sibling) for sibling in vector["siblings"]))
    if vector["valid"]:
        verify(root, leaf, proof)
    else:
        with pytest.raises(InvalidProof):
            verify(root, leaf, proof)


@pytest.mark.parametrize("vector", VECTORS["sha256_merkle"], ids=lambda v: str(len(v["rows"])))
def test_merkle_roots_and_branches_over_rows(vector: dict[str, Any]) -> None:
    session, first = SessionId(raw(vector["session_id"])), vector["first_position"]
    leaves = [row_leaf(session, first + i, raw(row)) for i, row in enumerate(vector["rows"])]
    assert leaves == [raw(leaf) for leaf in vector["leaves"]]
    assert merkle_root(leaves) == raw(vector["root"])
    branch = [(step["on_left"], raw(step["hash"])) for step in vector["branch"]]
    verify_merkle(raw(vector["root"]), leaves[vector["index"]], branch)


@pytest.mark.parametrize("vector", VECTORS["manifests"], ids=lambda v: v["name"])
def test_manifest_and_weight_roots(vector: dict[str, Any]) -> None:
    config, front, head = (Hash32(raw(vector[f"{part}_root"])) for part in ("config", "front", "head"))
    blocks = [Hash32(raw(root)) for root in vector["block_roots"]]
    about = f'{{"blocks":{len(blocks)},"name":"{vector["name"]}"}}'.encode()
    name = leaf_hash(b"model", len(about).to_bytes(4, "big"), about)
    assert merkle_root([name, config, front, merkle_root(blocks), head]) == raw(vector["root"])
    for span in vector["spans"]:
        assert merkle_root(blocks[span["start"] : span["end"]]) == raw(span["weight_root"])


@pytest.mark.parametrize("vector", VECTORS["receipts"], ids=lambda v: v["numeric_class"])
def test_receipt_hashes_and_signatures(vector: dict[str, str]) -> None:
    receipt = Receipt(
        chain_id=int(vector["chain_id"]),
        epoch=int(vector["epoch"]),
        model_root=ModelRoot(raw(vector["model_root"])),
        span=Span(int(vector["span_start"]), int(vector["span_end"])),
        weight_root=Hash32(raw(vector["weight_root"])),
        numeric_class=NumericClass(vector["numeric_class"]),
        session_id=SessionId(raw(vector["session_id"])),
        client_nonce=raw(vector["client_nonce"]),
        pos_start=int(vector["pos_start"]),
        n_pos=int(vector["n_pos"]),
        wire=WireDtype(vector["wire"]),
        batch=int(vector["batch"]),
        order_root=Hash32(raw(vector["order_root"])),
        in_root=Hash32(raw(vector["in_root"])),
        out_root=Hash32(raw(vector["out_root"])),
        upstream_receipt_hash=Hash32(raw(vector["upstream_receipt_hash"])),
        prev_receipt_hash=Hash32(raw(vector["prev_receipt_hash"])),
        t_in=int(vector["t_in"]),
        t_out=int(vector["t_out"]),
    )
    assert receipt.hash() == raw(vector["hash"])
    assert recover(receipt.hash(), raw(vector["signature"])) == VECTORS["signer"]


@pytest.mark.parametrize("vector", VECTORS["orders"], ids=lambda v: len(v["reorderings"]))
def test_what_reorderings_are_signed_by(vector: dict[str, Any]) -> None:
    reorderings = [Reordering(each["position"], tuple(each["rows"])) for each in vector["reorderings"]]
    words = [number for each in reorderings for number in (each.position, *each.rows)]
    assert order_root(reorderings) == raw(vector["root"])
    assert order_root(reorderings) == (keccak(encode(["uint256"] * len(words), words)) if words else bytes(32))
