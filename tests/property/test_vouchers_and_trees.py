"""Money on paper: vouchers bind every field, sum trees collateralise every cap, and nothing forged passes."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from corolla_core.protocol.errors import InvalidInput, InvalidProof, InvalidSignature
from corolla_core.protocol.ids import Address, Hash32, TrancheId, address
from corolla_core.protocol.merkle import leaf_hash, merkle_proof, merkle_root, verify_merkle
from corolla_core.protocol.signature import Signer, recover
from corolla_core.protocol.sumtree import Leaf, SumNode, SumProof, SumTree, hash_leaf, verify
from corolla_core.protocol.units import MAX_UINT128, Nectar
from corolla_core.protocol.voucher import Voucher, escrow_domain

words = st.binary(min_size=32, max_size=32)
accounts = st.binary(min_size=20, max_size=20).map(address)
amounts = st.integers(0, MAX_UINT128).map(Nectar)
secrets = st.integers(1, 2**250).map(lambda n: n.to_bytes(32, "big"))
vouchers = st.builds(Voucher, words.map(TrancheId), accounts, amounts, words.map(Hash32))
leaves = st.lists(
    st.builds(Leaf, accounts, st.integers(0, 2**100).map(Nectar)), min_size=1, max_size=9, unique_by=lambda x: x.payee
)


@settings(max_examples=25)
@given(vouchers, secrets, accounts, st.integers(1, 2**60))
def test_our_voucher_digest_is_eth_accounts(voucher: Voucher, secret: bytes, escrow: Address, chain_id: int) -> None:
    domain = escrow_domain(chain_id, escrow)
    fields = {"trancheId": "bytes32", "payee": "address", "cumulative": "uint128", "receiptHead": "bytes32"}
    message = encode_typed_data(
        domain_data={"name": domain.name, "version": domain.version, "chainId": chain_id, "verifyingContract": escrow},
        message_types={"Voucher": [{"name": n, "type": t} for n, t in fields.items()]},
        message_data={
            "trancheId": voucher.tranche_id,
            "payee": voucher.payee,
            "cumulative": voucher.cumulative,
            "receiptHead": voucher.receipt_head,
        },
    )
    signed = voucher.sign(domain, Signer(secret))
    assert signed.signature == Account.sign_message(message, secret).signature
    assert signed.signer(domain) == Account.from_key(secret).address


@given(vouchers, secrets, st.data())
def test_changing_any_field_of_a_voucher_changes_who_signed_it(
    voucher: Voucher, secret: bytes, data: st.DataObject
) -> None:
    domain = escrow_domain(1337, address(b"\x01" * 20))
    signed = voucher.sign(domain, Signer(secret))
    field = data.draw(st.sampled_from(["tranche_id", "payee", "cumulative", "receipt_head"]))
    other = data.draw(vouchers)
    forged = replace(voucher, **{field: getattr(other, field)})
    other_domain = escrow_domain(1, address(b"\x01" * 20))
    for candidate, under in ((replace(signed, voucher=forged), domain), (signed, other_domain)):
        if candidate == signed and under == domain:
            continue
        with contextlib.suppress(InvalidSignature):
            assert candidate.signer(under) != Signer(secret).address


@given(secrets, words)
def test_the_high_s_twin_of_a_signature_is_refused(secret: bytes, digest: bytes) -> None:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    good = Signer(secret).sign(Hash32(digest))
    s = order - int.from_bytes(good[32:64], "big")
    with pytest.raises(InvalidSignature):
        recover(Hash32(digest), good[:32] + s.to_bytes(32, "big") + bytes([55 - good[64]]))


@given(words, st.binary(max_size=70))
def test_a_random_signature_recovers_someone_or_is_refused(digest: bytes, signature: bytes) -> None:
    with contextlib.suppress(InvalidSignature):
        assert recover(Hash32(digest), signature).startswith("0x")


def test_a_signer_never_shows_its_secret() -> None:
    secret = b"\x11" * 32
    assert secret.hex() not in repr(Signer(secret))
    with pytest.raises(InvalidInput):
        Signer(bytes(32))


@given(leaves)
def test_every_leaf_is_proven_and_the_root_sums_the_caps(tree_leaves: list[Leaf]) -> None:
    tree = SumTree(tree_leaves)
    assert tree.root.sum == sum(leaf.cap for leaf in tree_leaves)
    for index, leaf in enumerate(tree_leaves):
        verify(tree.root, leaf, tree.proof(index))


@given(leaves, st.data())
def test_a_raised_cap_a_changed_sum_or_another_index_is_refused(tree_leaves: list[Leaf], data: st.DataObject) -> None:
    tree = SumTree(tree_leaves)
    index = data.draw(st.integers(0, len(tree_leaves) - 1))
    leaf, proof = tree_leaves[index], tree.proof(index)
    raised = replace(leaf, cap=Nectar(leaf.cap + data.draw(st.integers(1, 2**100))))
    forgeries: list[tuple[Leaf, SumProof]] = [(raised, proof), (leaf, SumProof(index + (1 << 33), proof.siblings))]
    if proof.siblings:
        depth = data.draw(st.integers(0, len(proof.siblings) - 1))
        sibling = proof.siblings[depth]
        smaller = SumNode(sibling.hash, sibling.sum + 1)
        forgeries += [
            (leaf, replace(proof, siblings=(*proof.siblings[:depth], smaller, *proof.siblings[depth + 1 :]))),
            (leaf, replace(proof, siblings=proof.siblings[:-1], index=0)),
        ]
    for forged_leaf, forged in forgeries:
        with pytest.raises(InvalidProof):
            verify(tree.root, forged_leaf, forged)


def test_sums_that_overflow_are_refused_not_wrapped() -> None:
    a, b = (Leaf(address(bytes([n]) * 20), Nectar(MAX_UINT128)) for n in (1, 2))
    with pytest.raises(InvalidInput):
        SumTree([a, b])
    sibling = hash_leaf(b)
    with pytest.raises(InvalidProof):
        verify(SumNode(Hash32(bytes(32)), 5), a, SumProof(0, (sibling,)))


def test_a_payee_stands_once_in_a_tree() -> None:
    leaf = Leaf(address(b"\x01" * 20), Nectar(1))
    with pytest.raises(InvalidInput):
        SumTree([leaf, leaf])


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=20), st.data())
def test_every_merkle_leaf_is_proven_and_no_other(rows: list[bytes], data: st.DataObject) -> None:
    hashes = [leaf_hash(i.to_bytes(4, "big"), row) for i, row in enumerate(rows)]
    root = merkle_root(hashes)
    index = data.draw(st.integers(0, len(rows) - 1))
    branch = merkle_proof(hashes, index)
    verify_merkle(root, hashes[index], branch)
    with pytest.raises(InvalidProof):
        verify_merkle(root, leaf_hash(b"other"), branch)
