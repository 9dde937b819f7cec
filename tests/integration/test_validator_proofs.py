"""From receipts in a validator's books to the stake they cost: every provable fault, on Ganache."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from ganache import Ganache

from corolla_core.chain.deploy import deploy_all
from corolla_core.chain.faults import FaultParameters, Faults, ManifestParts
from corolla_core.chain.models import Models
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.ids import ZERO_HASH, Hash32, SessionId
from corolla_core.protocol.provable import kind
from corolla_core.protocol.receipt import NumericClass, Receipt, SignedReceipt, WireDtype
from corolla_core.protocol.receipt_chain import link
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import ONE_NECTAR, Nectar
from corolla_core.store.store import Store
from corolla_core.store.validator_store import ValidatorStore
from corolla_validator.fault_finder import FaultFinder
from corolla_validator.payments import Payments
from corolla_validator.prosecutor import Prosecutor
from corolla_validator.published import Published

pytestmark = pytest.mark.anyio
STAKE = Nectar(200 * ONE_NECTAR)
SESSION = SessionId(b"s" * 16)
OTHER = Hash32(b"\x0e" * 32)
MANIFEST = Manifest(
    "model",
    config_root=Hash32(sha256(b"config").digest()),
    front_root=Hash32(sha256(b"front").digest()),
    block_roots=tuple(Hash32(sha256(b"block %d" % n).digest()) for n in range(4)),
    head_root=Hash32(sha256(b"head").digest()),
)
PARTS = ManifestParts(MANIFEST.name, MANIFEST.config_root, MANIFEST.front_root, MANIFEST.head_root)
UPPER, LOWER = Span(0, 2), Span(2, 4)


class Bench:
    """A validator's books and its way to the contracts; `deployer` has the money."""

    def __init__(self, chain: Chain, deployer: Signer, validator: Signer, store: Store) -> None:
        self.chain = chain
        self.validator = validator
        self.money = TransactionSender(chain, deployer)
        self.models = Models(chain, self.money)
        self.published = Published(self.models, MANIFEST, clock=monotonic)
        self.store = store
        self.books = ValidatorStore(store)
        self.start_again()
        faults = Faults(chain, TransactionSender(chain, validator))
        self.court = Prosecutor(None, faults, Payments(chain), self.published, PARTS, None)

    def start_again(self) -> None:
        """Nothing is known but what is in the books."""
        self.finder = FaultFinder(self, self.store, self.published)  # type: ignore[arg-type]

    async def named(self, node: Any, hashes: Sequence[Hash32]) -> list[SignedReceipt]:
        return []

    async def stake(self, node: Signer) -> None:
        await Token(self.chain, self.money).mint(node.address, STAKE)
        await Registry(self.chain, TransactionSender(self.chain, node)).register(b"peer", node.address, STAKE)

    async def receipt(self, span: Span, **changes: Any) -> Receipt:
        now = await self.chain.now() * 1000
        made = Receipt(
            chain_id=self.chain.chain_id,
            epoch=0,
            model_root=MANIFEST.root,
            span=span,
            weight_root=MANIFEST.weight_root(span),
            numeric_class=NumericClass.FP32,
            session_id=SESSION,
            client_nonce=bytes([span.start]) * 32,
            pos_start=0,
            n_pos=8,
            wire=WireDtype.FLOAT32,
            batch=1,
            order_root=ZERO_HASH,
            in_root=Hash32(sha256(b"rows %d" % span.start).digest()),
            out_root=Hash32(sha256(b"rows %d" % span.end).digest()),
            upstream_receipt_hash=ZERO_HASH,
            prev_receipt_hash=ZERO_HASH,
            t_in=now,
            t_out=now,
        )
        return replace(made, **changes)

    async def prove_all(self, *receipts: SignedReceipt) -> list[tuple[str, str, int | None]]:
        """What is found in these, and what each proof costs whom."""
        for signed in receipts:
            self.books.record_receipt(signed)
        online: Any = {signed.signer(): SimpleNamespace(account=signed.signer()) for signed in receipts}
        found = []
        for linked in link(self.books.receipts(SESSION)):
            for fault in await self.finder.look(linked, online):
                found.append((kind(fault), fault.node, await self.court.prove(fault, None)))
        return found


@pytest.fixture
async def bench(ganache: Ganache, tmp_path: Path) -> AsyncIterator[Bench]:
    network = await deploy_all(ganache.url, ganache.accounts[0], name="test")
    async with await Chain.connect(network) as chain, Store.open(tmp_path / "books.db") as store:
        made = Bench(chain, ganache.accounts[0], ganache.accounts[1], store)
        await made.models.publish(MANIFEST.name, MANIFEST.root, MANIFEST.block_roots, [NumericClass.FP32])
        yield made


async def test_every_provable_fault_found_in_the_books_is_proven_and_paid_for(bench: Bench, ganache: Ganache) -> None:
    forker, linker, dresser, honest = ganache.accounts[2:6]
    for node in (forker, linker, dresser, honest):
        await bench.stake(node)
    first = await bench.receipt(UPPER)
    over = {"upstream_receipt_hash": first.hash()}
    found = await bench.prove_all(
        first.sign(forker),
        replace(first, out_root=OTHER).sign(forker),
        (await bench.receipt(LOWER, **over)).sign(honest),
        (await bench.receipt(LOWER, in_root=OTHER, **over)).sign(linker),
        (await bench.receipt(LOWER, weight_root=OTHER)).sign(dresser),
    )
    terms = FaultParameters()
    part = STAKE * terms.weights_bps // 10_000
    assert sorted(found) == sorted(
        [
            ("fork", forker.address, STAKE),
            ("broken link", linker.address, STAKE),
            ("false weights", dresser.address, part),
        ]
    )
    reward = 2 * (STAKE * terms.reward_bps // 10_000) + part * terms.reward_bps // 10_000
    assert await Token(bench.chain).balance_of(bench.validator.address) == reward
    registry = Registry(bench.chain)
    assert [(await registry.node(node.address)).stake for node in (forker, linker, dresser, honest)] == [
        0,
        0,
        STAKE - part,
        STAKE,
    ]
    assert await registry.is_active(honest.address)
    bench.start_again()
    assert {cost for _kind, _node, cost in await bench.prove_all()} == {None}


async def test_a_class_convicts_until_some_version_of_the_model_has_it(bench: Bench, ganache: Ganache) -> None:
    early, late = ganache.accounts[6:8]
    for node in (early, late):
        await bench.stake(node)
    await bench.published.now()  # what it knows is old by the time the second one signs
    found = await bench.prove_all((await bench.receipt(UPPER, numeric_class=NumericClass.BF16)).sign(early))
    assert [(what, who) for what, who, _cost in found] == [("false weights", early.address)]
    await bench.models.publish(MANIFEST.name, MANIFEST.root, MANIFEST.block_roots, [NumericClass.BF16])
    assert await bench.prove_all((await bench.receipt(UPPER, numeric_class=NumericClass.BF16)).sign(late)) == []
    versions = await bench.models.versions(MANIFEST.name, MANIFEST.root)
    assert [version.numeric_classes for version in versions] == [(NumericClass.FP32,), (NumericClass.BF16,)]
