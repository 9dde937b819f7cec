"""False weights: what a receipt claims of its model is held against the manifest root that it names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from brownie import accounts, chain
from faults_world import (
    BLOCKS,
    CONFIG_ROOT,
    FRONT_ROOT,
    HEAD_ROOT,
    JAIL,
    MANIFEST,
    MAX_AGE,
    MODEL,
    REWARD_BPS,
    WEIGHTS_BPS,
    Work,
    deploy_faults,
    fault,
    high_s,
    manifest_root,
    no_fault,
    words,
)
from world import DAY, MIN_STAKE, now, reverts, signer

from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.merkle import merkle_root
from corolla_core.protocol.receipt import NumericClass, SignedReceipt
from corolla_core.protocol.span import Span

NODE, NOBODY = 5, 8
X = Hash32(b"\x0e" * 32)


@pytest.fixture(scope="module")
def deployed(module_isolation, project):
    world = deploy_faults(project, accounts[0])
    world.stake(NODE)
    return world


@pytest.fixture
def work(world):
    """A session that the node has signed two receipts in."""
    session = Work(NODE, Span(4, 12))
    session.chunk(0)
    session.chunk(4)
    return session


def test_false_weights_cost_most_of_the_stake_and_a_jailing(world, work):
    tx = world.prove_weights(work.forge(weight_root=X))
    amount = MIN_STAKE * WEIGHTS_BPS // 10_000
    event = tx.events["FaultPunished"]
    assert (event["amount"], event["reward"]) == (amount, amount * REWARD_BPS // 10_000)
    assert bytes(event["fault"]) == fault("false weights")
    assert world.stake_of(NODE) == MIN_STAKE - amount
    assert world.jailed_until(NODE) == event["until"] == tx.timestamp + JAIL


@pytest.mark.parametrize(
    "change",
    [
        {"span": Span(4, 13)},
        {"span": Span(12, 13)},
        {"span": Span(5, 12)},
        {"weight_root": merkle_root(BLOCKS[:4])},
        {"numeric_class": NumericClass.NF4},
    ],
    ids=[
        "a span beyond the model",
        "a span outside it",
        "a wider root",
        "another span's root",
        "a class not published",
    ],
)
def test_what_false_weights_are(world, work, change):
    world.prove_weights(work.forge(**change))
    assert world.stake_of(NODE) < MIN_STAKE


def test_an_empty_span_is_false(world, work):
    fields = words(work.receipts[1].receipt)
    fields[4] = fields[3]
    digest = Hash32(bytes(world.faults.receiptHash(fields)))
    nothing = (bytes(32), fields)
    world.faults.proveWeights(fields, signer(NODE).sign(digest), 1, MANIFEST, nothing, {"from": accounts[NOBODY]})
    assert world.stake_of(NODE) < MIN_STAKE


@pytest.mark.parametrize("span", [Span(0, 12), Span(4, 12), Span(0, 1), Span(11, 12), Span(3, 8)], ids=str)
@pytest.mark.parametrize("numeric_class", [NumericClass.FP32, NumericClass.BF16])
def test_true_weights_are_no_fault(world, span, numeric_class):
    work = Work(NODE, span)
    work.chunk(0)
    with no_fault("false weights"):
        world.prove_weights(work.forge(numeric_class=numeric_class))


def test_nobody_elses_publication_convicts_a_node(world, work):
    """Anybody may publish anything under a name of its own, even the root of a model it does not own."""
    honest = work.receipts[1]
    inner = [Hash32(merkle_root(BLOCKS[i : i + 2])) for i in range(0, 12, 2)]
    assert merkle_root(inner) == merkle_root(BLOCKS)
    for name, blocks in (("evil", [X]), ("evil", list(BLOCKS)), ("worse", inner)):
        world.publish(name, manifest_root(), blocks, [NumericClass.NF4], by=7)
    for version, name in ((1, "evil"), (2, "evil"), (1, "worse")):
        with reverts("ManifestMismatch"):
            world.prove_weights(honest, version, (name, CONFIG_ROOT, FRONT_ROOT, HEAD_ROOT))
    with reverts("VersionUnknown"):
        world.prove_weights(honest, 2)
    with reverts("ManifestMismatch"):
        world.prove_weights(work.forge(weight_root=X), 1, (MODEL, CONFIG_ROOT, FRONT_ROOT, X))
    assert world.stake_of(NODE) == MIN_STAKE


def test_another_version_of_the_model_proves_nothing(world, work):
    world.publish(MODEL, manifest_root(blocks=BLOCKS[:6]), BLOCKS[:6], [NumericClass.FP32])
    with reverts("ModelMismatch"):
        world.prove_weights(work.receipts[1], 2)


def test_a_models_owner_cannot_take_a_class_back_from_those_who_serve_it(world, work):
    world.publish(MODEL, manifest_root(), BLOCKS, [NumericClass.INT8])
    later = work.chunk(8)
    for version in (1, 2):
        for numeric_class in (NumericClass.FP32, NumericClass.BF16, NumericClass.INT8):
            with no_fault("false weights"):
                world.prove_weights(replace(later.receipt, numeric_class=numeric_class).sign(signer(NODE)), version)


def test_work_begun_before_its_model_was_published_has_no_wrong_class(world, work):
    root = manifest_root("late")
    early = work.forge(model_root=root, t_in=(now() - 100) * 1000)
    world.publish("late", root, BLOCKS, [NumericClass.NF4])
    late = ("late", CONFIG_ROOT, FRONT_ROOT, HEAD_ROOT)
    with no_fault("false weights"):
        world.prove_weights(early, 1, late)
    chain.sleep(10)
    world.prove_weights(work.forge(model_root=root, t_in=(now() + 5) * 1000, t_out=(now() + 6) * 1000), 1, late)


def test_the_same_false_weights_are_punished_again_only_after_the_jailing(world, work):
    first = world.prove_weights(work.forge(weight_root=X)).events["FaultPunished"]
    left = world.stake_of(NODE)
    for began in (now(), first["until"]):
        with reverts("AlreadyPunished"):
            world.prove_weights(work.forge(weight_root=X, t_in=began * 1000, t_out=began * 1000))
    chain.sleep(JAIL + 10)
    chain.mine()
    began = (first["until"] + 1) * 1000
    world.prove_weights(work.forge(weight_root=X, t_in=began, t_out=began))
    assert world.stake_of(NODE) == left - left * WEIGHTS_BPS // 10_000


def test_a_jailing_never_shortens_another(world, work):
    until = now() + 50 * DAY
    world.registry.jail(accounts[NODE], until, {"from": accounts[0]})
    world.prove_weights(work.forge(weight_root=X))
    assert world.jailed_until(NODE) == until


def test_weights_need_the_nodes_signature_the_chain_and_the_time(world, work):
    false = work.forge(weight_root=X)
    with reverts("NotRegistered"):
        world.prove_weights(work.forge(by=NOBODY, weight_root=X))
    with reverts("ECDSAInvalidSignatureS"):
        world.prove_weights(SignedReceipt(false.receipt, high_s(false.signature)))
    with reverts("WrongChain"):
        world.prove_weights(work.forge(weight_root=X, chain_id=7))
    chain.mine(timestamp=now() + MAX_AGE + 10)
    with reverts("ReceiptTooOld"):
        world.prove_weights(false)
