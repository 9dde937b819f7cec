"""The contracts pass docs/spec/vectors.json; tests/unit/test_vectors.py holds Python to the same file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from brownie import accounts, chain
from eth_utils import keccak
from world import ONE_NECTAR, now, reverts

from corolla_core.protocol.ids import Address
from corolla_core.protocol.merkle import leaf_hash, merkle_proof, merkle_root
from corolla_core.protocol.voucher import Voucher, escrow_domain, tranche_id

VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "spec" / "vectors.json").read_text())


def raw(text):
    return bytes.fromhex(text[2:])


def pair(node):
    return [node["hash"], node["sum"]]


def voucher_of(vector):
    return [vector["tranche_id"], vector["payee"], vector["cumulative"], vector["receipt_head"]]


@pytest.mark.parametrize("vector", VECTORS["domains"], ids=lambda v: v["chain_id"])
def test_domain_separators(harness, vector):
    fields = [vector[name] for name in ("name", "version", "chain_id", "verifying_contract")]
    assert bytes(harness.domainSeparator(*fields)) == raw(vector["separator"])


@pytest.mark.parametrize("vector", VECTORS["tranche_ids"], ids=lambda v: v["nonce"])
def test_tranche_ids(harness, vector):
    fields = [vector[name] for name in ("chain_id", "escrow", "payer", "nonce")]
    assert bytes(harness.trancheId(*fields)) == raw(vector["tranche_id"])


@pytest.mark.parametrize("vector", VECTORS["vouchers"], ids=lambda v: v["cumulative"])
def test_voucher_digests_and_signatures(harness, vector):
    where = VECTORS["voucher_domain"]
    domain = escrow_domain(where["chain_id"], Address(where["verifying_contract"]))
    assert bytes(harness.structHash(voucher_of(vector))) == raw(vector["struct_hash"])
    digest = harness.digest(domain.separator, voucher_of(vector))
    assert bytes(digest) == raw(vector["digest"])
    assert harness.recover(digest, vector["signature"]) == VECTORS["signer"]
    with reverts("ECDSAInvalidSignatureS"):
        harness.recover(digest, vector["high_s_signature"])


@pytest.mark.parametrize("tree", VECTORS["sum_trees"]["trees"], ids=lambda v: str(len(v["leaves"])))
def test_sum_tree_leaves_and_roots(harness, tree):
    level = []
    for leaf in tree["leaves"]:
        hashed = harness.hashLeaf(leaf["payee"], leaf["cap"])
        assert (bytes(hashed[0]), str(hashed[1])) == (raw(leaf["hash"]), leaf["sum"])
        level.append((bytes(hashed[0]), int(hashed[1])))
    width = 1 << (len(level) - 1).bit_length()
    padding = harness.hashLeaf("0x" + "0" * 40, 0)
    level += [(bytes(padding[0]), 0)] * (width - len(level))
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [(bytes(harness.hashPair(left, right)), left[1] + right[1]) for left, right in pairs]
    assert level == [(raw(tree["root"]["hash"]), int(tree["root"]["sum"]))]


@pytest.mark.parametrize("vector", VECTORS["sum_trees"]["proofs"], ids=lambda v: v["why"])
def test_sum_proofs_and_forgeries(harness, vector):
    siblings = [pair(sibling) for sibling in vector["siblings"]]
    leaf = vector["payee"], vector["cap"], vector["index"]
    assert harness.verify(pair(vector["root"]), *leaf, siblings) is vector["valid"]


@pytest.mark.parametrize("vector", VECTORS["sha256_merkle"], ids=lambda v: str(len(v["rows"])))
def test_sha256_merkle_leaves_and_branches(harness, vector):
    for i, (row, leaf) in enumerate(zip(vector["rows"], vector["leaves"], strict=True)):
        made = harness.rowLeaf(vector["session_id"], vector["first_position"] + i, row)
        assert bytes(made) == raw(leaf)
    leaves, index, siblings = vector["leaves"], vector["index"], [step["hash"] for step in vector["branch"]]
    assert bytes(harness.merkleRoot(leaves)) == raw(vector["root"])
    assert harness.verifyMerkle(vector["root"], leaves[index], index, len(leaves), siblings)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 11, 16, 17])
def test_a_leaf_verifies_at_its_own_index_only(harness, size):
    leaves = [leaf_hash(bytes([i])) for i in range(size)]
    root = merkle_root(leaves)
    assert bytes(harness.merkleRoot(leaves)) == root
    for index in range(size):
        siblings = [sibling for _, sibling in merkle_proof(leaves, index)]
        at = [harness.verifyMerkle(root, leaves[index], i, size, siblings) for i in range(size + 1)]
        assert at == [i == index for i in range(size + 1)]
        assert not harness.verifyMerkle(root, leaves[index], index, size, [*siblings, bytes(32)])
        if siblings:
            assert not harness.verifyMerkle(root, leaves[index], index, size, siblings[:-1])


@pytest.mark.parametrize("vector", VECTORS["manifests"], ids=lambda v: v["name"])
def test_manifest_and_weight_roots(harness, vector):
    blocks = vector["block_roots"]
    parts = [vector["name"], vector["config_root"], vector["front_root"], vector["head_root"]]
    assert bytes(harness.manifestRoot(parts, blocks)) == raw(vector["root"])
    for span in vector["spans"]:
        assert bytes(harness.weightRoot(blocks, span["start"], span["end"])) == raw(span["weight_root"])
    if len(blocks) > 1:
        inner = bytes(harness.weightRoot(blocks, 0, len(blocks)))
        assert bytes(harness.manifestRoot(parts, [inner])) != raw(vector["root"])


@pytest.mark.parametrize("vector", VECTORS["receipts"], ids=lambda v: v["numeric_class"])
def test_receipt_hashes_and_signatures(harness, vector):
    fields = [value for name, value in vector.items() if name not in ("hash", "signature")]
    fields[6], fields[11] = keccak(text=vector["numeric_class"]), keccak(text=vector["wire"])
    digest = harness.receiptHash(fields)
    assert bytes(digest) == raw(vector["hash"])
    assert harness.recover(digest, vector["signature"]) == VECTORS["signer"]


def test_the_escrow_itself_hashes_as_python_does(world):
    """The vectors' address is arbitrary; this is the same over the address the escrow really has."""
    escrow = Address(world.escrow.address)
    assert bytes(world.escrow.domainSeparator()) == escrow_domain(chain.id, escrow).separator
    for vector in VECTORS["vouchers"]:
        voucher = Voucher(
            raw(vector["tranche_id"]),
            Address(vector["payee"]),
            int(vector["cumulative"]),
            raw(vector["receipt_head"]),
        )
        digest = bytes(world.escrow.voucherDigest(voucher_of(vector)))
        assert digest == voucher.digest(escrow_domain(chain.id, escrow))
    payer = Address(accounts[1].address)
    for nonce in (0, 1, 2**256 - 1):
        assert bytes(world.escrow.trancheIdOf(payer, nonce)) == tranche_id(chain.id, escrow, payer, nonce)


def test_the_escrow_names_tranches_as_python_does(world):
    payer, escrow = Address(accounts[1].address), Address(world.escrow.address)
    for nonce in range(2):
        assert world.escrow.trancheNonce(payer) == nonce
        tx = world.escrow.openTranche(b"\x01" * 32, ONE_NECTAR, now() + 100, {"from": payer})
        assert bytes(tx.events["TrancheOpened"]["trancheId"]) == tranche_id(chain.id, escrow, payer, nonce)
