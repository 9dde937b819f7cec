"""Manifests: any changed bit of any part is noticed, and the right part is named."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import BLOCKS, Zoo

from corolla_core.model.block_range import load_blocks
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.ends import load_ends
from corolla_core.model.front import load_front
from corolla_core.model.head import load_head
from corolla_core.model.layout import bytes_of
from corolla_core.model.manifest import CHUNK_BYTES, Manifest, build_manifest, tensors_root
from corolla_core.protocol.errors import CorollaError, InvalidInput, ModelError, WeightsCorrupt
from corolla_core.protocol.merkle import merkle_root
from corolla_core.protocol.span import Span


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    torch.set_num_threads(1)
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def manifest(zoo: Zoo) -> Manifest:
    return build_manifest(zoo.checkpoint("llama"))


@pytest.mark.parametrize("arch", ["llama", "llama_tied", "mixtral", "gpt_neox", "bloom"])
def test_a_true_checkpoint_loads_under_its_manifest(zoo: Zoo, arch: str) -> None:
    checkpoint = zoo.checkpoint(arch)
    manifest = build_manifest(checkpoint)
    assert manifest.num_blocks == BLOCKS
    assert len({manifest.config_root, manifest.front_root, *manifest.block_roots, manifest.head_root}) == BLOCKS + 3
    load_front(checkpoint, manifest=manifest)
    load_head(checkpoint, manifest=manifest)
    load_ends(checkpoint, manifest=manifest)
    load_blocks(checkpoint, Span(1, 3), manifest=manifest)


def test_how_a_checkpoint_is_cut_into_files_does_not_change_its_root(
    zoo: Zoo, manifest: Manifest, tmp_path: Path
) -> None:
    zoo.reference("llama").save_pretrained(tmp_path / "llama")
    assert build_manifest(open_checkpoint(str(tmp_path / "llama"))).root == manifest.root


def test_the_weight_root_of_a_span_is_the_tree_over_its_blocks(manifest: Manifest) -> None:
    assert manifest.weight_root(Span(1, 3)) == merkle_root(manifest.block_roots[1:3])
    assert manifest.weight_root(Span(2, 3)) == manifest.block_roots[2]
    with pytest.raises(InvalidInput):
        manifest.weight_root(Span(2, 5))


def spoil(checkpoint: Checkpoint, name: str, bit: int) -> None:
    """Flip one bit of one tensor on disk."""
    entry = checkpoint.entry(name)
    path, at = checkpoint.folder / entry.file, entry.start + bit // 8 % entry.nbytes
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit % 8
    path.write_bytes(content)


PARTS = {
    "model.embed_tokens.": Manifest.check_front,
    "model.layers.0.": partial(Manifest.check_blocks, span=Span(0, 1)),
    "model.layers.1.": partial(Manifest.check_blocks, span=Span(1, 2)),
    "model.layers.2.": partial(Manifest.check_blocks, span=Span(2, 3)),
    "model.layers.3.": partial(Manifest.check_blocks, span=Span(3, 4)),
    ("model.norm.", "lm_head."): Manifest.check_head,
}


@given(
    spoilt=st.sampled_from(list(PARTS)), other=st.sampled_from(list(PARTS)), at=st.integers(0, 99), bit=st.integers(0)
)
@settings(max_examples=30, deadline=None)
def test_any_flipped_bit_is_found_in_the_part_that_holds_it(
    zoo: Zoo, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory, spoilt: Any, other: Any, at: int, bit: int
) -> None:
    folder = Path(shutil.copytree(zoo.folder("llama"), tmp_path_factory.mktemp("spoilt") / "llama"))
    checkpoint = open_checkpoint(str(folder))
    names = [name for name in checkpoint.tensor_names if name.startswith(spoilt)]
    spoil(checkpoint, names[at % len(names)], bit)
    with pytest.raises(WeightsCorrupt):
        PARTS[spoilt](manifest, checkpoint, tensors=checkpoint.read(names))
    if other != spoilt:
        names = [name for name in checkpoint.tensor_names if name.startswith(other)]
        PARTS[other](manifest, checkpoint, tensors=checkpoint.read(names))
    shutil.rmtree(folder)


@given(
    size=st.sampled_from([1, 2, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES]),
    at=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=20, deadline=None)
def test_every_byte_of_every_chunk_counts(tmp_path_factory: pytest.TempPathFactory, size: int, at: float) -> None:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("bytes")
    tensor = torch.randint(0, 256, (size,), dtype=torch.uint8)
    save_file({"t": tensor}, folder / "model.safetensors")
    checkpoint = open_checkpoint(str(folder))
    (read,) = checkpoint.read(["t"]).values()
    root = tensors_root(checkpoint, {"t": read})
    bytes_of(read)[int(at * size)] ^= 1
    assert tensors_root(checkpoint, {"t": read}) != root


@pytest.mark.parametrize(
    "change", [{"rms_norm_eps": 0.5}, {"rope_parameters": {"rope_type": "default", "rope_theta": 7}}]
)
def test_a_changed_config_is_found(zoo: Zoo, manifest: Manifest, tmp_path: Path, change: dict[str, Any]) -> None:
    folder = Path(shutil.copytree(zoo.folder("llama"), tmp_path / "llama"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    checkpoint = open_checkpoint(str(folder))
    for load in (load_front, load_head):
        with pytest.raises(WeightsCorrupt):
            load(checkpoint, manifest=manifest)
    with pytest.raises(WeightsCorrupt):
        load_blocks(checkpoint, Span(0, 1), manifest=manifest)


def test_an_added_chat_template_is_found(zoo: Zoo, manifest: Manifest, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(zoo.folder("llama"), tmp_path / "llama"))
    (folder / "chat_template.jinja").write_text("say what I want")
    with pytest.raises(WeightsCorrupt):
        load_front(open_checkpoint(str(folder)), manifest=manifest)


def test_a_manifest_survives_its_file(manifest: Manifest) -> None:
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.root == manifest.root


def test_blocks_in_another_order_are_another_model(manifest: Manifest) -> None:
    turned = Manifest(
        manifest.name, manifest.config_root, manifest.front_root, manifest.block_roots[::-1], manifest.head_root
    )
    assert turned.root != manifest.root


def test_another_name_is_another_model(zoo: Zoo, manifest: Manifest) -> None:
    assert build_manifest(zoo.checkpoint("llama"), name="other").root != manifest.root


@pytest.mark.parametrize(
    "change",
    [
        {"root": "00" * 32},
        {"name": "other"},
        {"name": "x" * 65},
        {"name": ""},
        {"name": 7},
        {"front_root": "00"},
        {"front_root": 5},
        {"head_root": None},
        {"block_roots": []},
        {"block_roots": ["00" * 32]},
        {"block_roots": 5},
        {"format": "corolla/manifest/v2"},
        {"format": None},
    ],
)
def test_a_manifest_file_that_was_tampered_with_is_refused(manifest: Manifest, change: dict[str, Any]) -> None:
    body = json.loads(manifest.to_json()) | change
    with pytest.raises(InvalidInput):
        Manifest.from_json(json.dumps(body))


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_other_json_is_refused(body: Any) -> None:
    with pytest.raises(CorollaError):
        Manifest.from_json(json.dumps(body))


@given(st.binary(max_size=100))
def test_any_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(CorollaError):
        Manifest.from_json(raw)


def test_a_checkpoint_without_a_manifest_says_so(zoo: Zoo) -> None:
    with pytest.raises(ModelError, match="build_manifest"):
        Manifest.beside(zoo.checkpoint("llama"))
