"""Models: names with owners, immutable versions."""

from __future__ import annotations

import pytest
from brownie import accounts
from eth_utils import keccak
from world import reverts

ROOTS = [keccak(text=f"block {i}") for i in range(3)]
CLASSES = [keccak(text="fp32"), keccak(text="bf16")]
MANIFEST = keccak(text="manifest")
MODEL = keccak(text="smollm2-135m-instruct")
OWNER, STRANGER = {"from": 1}, {"from": 2}


@pytest.fixture
def models(world):
    OWNER["from"], STRANGER["from"] = accounts[1], accounts[2]
    return world.models


def publish(models, sender=OWNER, **changes):
    fields = {"name": "smollm2-135m-instruct", "root": MANIFEST, "blocks": ROOTS, "classes": CLASSES} | changes
    return models.publish(*fields.values(), sender)


def test_a_published_version_reads_back_in_full(models):
    tx = publish(models)
    version, model = models.latest(MODEL)
    assert version == 1 == models.versionCount(MODEL)
    assert bytes(model["manifestRoot"]) == MANIFEST
    assert [bytes(root) for root in model["blockRoots"]] == ROOTS
    assert [bytes(item) for item in model["numericClasses"]] == CLASSES
    assert model["publishedAt"] == tx.timestamp
    assert not model["deprecated"]
    assert bytes(models.blockRoot(MODEL, 1, 2)) == ROOTS[2]
    assert models.ownerOf(MODEL) == accounts[1]
    assert tx.events["ModelPublished"]["name"] == "smollm2-135m-instruct"


def test_the_id_of_a_model_is_the_hash_of_its_name(models):
    assert bytes(models.modelIdOf("smollm2-135m-instruct")) == MODEL


def test_only_the_owner_of_a_name_publishes_under_it(models):
    publish(models)
    with reverts("NotModelOwner"):
        publish(models, STRANGER)
    publish(models, root=keccak(text="second"))
    assert models.latest(MODEL)[0] == 2
    assert bytes(models.versionOf(MODEL, 1)["manifestRoot"]) == MANIFEST


def test_a_deprecated_version_is_passed_over_but_stays_readable(models):
    publish(models)
    publish(models, root=keccak(text="second"))
    models.deprecate(MODEL, 2, OWNER)
    assert models.latest(MODEL)[0] == 1
    assert models.versionOf(MODEL, 2)["deprecated"]
    with reverts("AlreadyDeprecated"):
        models.deprecate(MODEL, 2, OWNER)
    models.deprecate(MODEL, 1, OWNER)
    with reverts("VersionUnknown", 0):
        models.latest(MODEL)


def test_a_stranger_deprecates_nothing(models):
    publish(models)
    with reverts("NotModelOwner"):
        models.deprecate(MODEL, 1, STRANGER)


def test_a_name_can_be_handed_on(models):
    publish(models)
    with reverts("NotModelOwner"):
        models.transferModel(MODEL, accounts[2], STRANGER)
    with reverts("OwnerIsZero"):
        models.transferModel(MODEL, "0x" + "0" * 40, OWNER)
    models.transferModel(MODEL, accounts[2], OWNER)
    publish(models, STRANGER)
    with reverts("NotModelOwner"):
        publish(models)


def test_what_was_never_published_is_unknown(models):
    with reverts("VersionUnknown"):
        models.latest(MODEL)
    publish(models)
    for version in (0, 2):
        with reverts("VersionUnknown", version):
            models.versionOf(MODEL, version)
    with reverts("BlockUnknown", 3):
        models.blockRoot(MODEL, 1, 3)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": ""}, "NameLengthInvalid"),
        ({"name": "x" * 97}, "NameLengthInvalid"),
        ({"root": bytes(32)}, "RootIsZero"),
        ({"blocks": []}, "BlockCountInvalid"),
        ({"blocks": [b"\x01" * 32] * 513}, "BlockCountInvalid"),
        ({"blocks": [ROOTS[0], bytes(32)]}, "RootIsZero"),
        ({"classes": []}, "NumericClassCountInvalid"),
        ({"classes": CLASSES * 9}, "NumericClassCountInvalid"),
    ],
)
def test_a_malformed_model_is_refused(models, changes, error):
    with reverts(error):
        publish(models, **changes)
