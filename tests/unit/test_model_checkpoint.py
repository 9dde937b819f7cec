"""Checkpoints wherever they are: only what is needed is read, and what is broken is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from model_zoo import HIDDEN, Zoo, tokens
from range_server import RangeServer, range_server
from safetensors.torch import load_file, save_file

from corolla_core.model.block_range import load_blocks
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.ends import load_ends
from corolla_core.model.front import load_front
from corolla_core.model.head import load_head
from corolla_core.model.source import DirectorySource
from corolla_core.protocol.errors import InvalidSpan, ModelError, UnsupportedModel, WeightsCorrupt, WeightsMissing
from corolla_core.protocol.span import Span


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    torch.set_num_threads(1)
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture
def copy(zoo: Zoo, tmp_path: Path) -> Path:
    """A llama checkpoint that the test may spoil."""
    return Path(shutil.copytree(zoo.folder("llama"), tmp_path / "copy"))


@pytest.fixture
def server(zoo: Zoo) -> Iterator[RangeServer]:
    with range_server(zoo.folder("llama")) as running:
        yield running


class Counting(DirectorySource):
    """A directory that remembers how many bytes of weights were read."""

    read = 0

    def read_into(self, file: str, start: int, buffers: Sequence[memoryview]) -> None:
        self.read += sum(len(buffer) for buffer in buffers)
        super().read_into(file, start, buffers)


def rewrite(folder: Path, name: str, tensor: torch.Tensor | None) -> Path:
    """Replace (or remove) one tensor of a checkpoint."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    path: Path = folder / index["weight_map"][name]
    tensors = load_file(path)
    del tensors[name]
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, path, metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("arch", ["llama", "mixtral", "bloom"])
def test_only_the_tensors_of_the_span_are_read(zoo: Zoo, arch: str) -> None:
    source = Counting(zoo.folder(arch))
    checkpoint = Checkpoint(source)
    blocks = load_blocks(checkpoint, Span(1, 2))
    headers = {
        file: int.from_bytes((zoo.folder(arch) / file).read_bytes()[:8], "little") + 8
        for file in set((checkpoint.weight_files or {}).values())
    }
    read_of_tensors = source.read - sum(headers[file] for file in checkpoint._headers)
    assert read_of_tensors == sum(p.nbytes for p in blocks.parameters())
    assert len(checkpoint._headers) < len(headers)


def test_a_checkpoint_in_one_file_loads(zoo: Zoo, tmp_path: Path) -> None:
    zoo.reference("llama").save_pretrained(tmp_path / "one")
    assert (tmp_path / "one" / "model.safetensors").is_file()
    blocks = load_blocks(open_checkpoint(str(tmp_path / "one")), Span(1, 3))
    hidden = torch.randn(1, 5, HIDDEN)
    other = zoo.blocks("llama", Span(1, 3))
    assert torch.equal(blocks.forward(hidden, blocks.new_cache(1, 5)), other.forward(hidden, other.new_cache(1, 5)))


@pytest.mark.parametrize("arch", ["llama", "llama_tied", "gemma", "bloom", "gpt_neox"])
def test_both_ends_loaded_together_are_both_ends_loaded_apart(zoo: Zoo, arch: str) -> None:
    front, head = load_ends(zoo.checkpoint(arch))
    ids, hidden = tokens(1, 2, 6), torch.randn(2, 3, HIDDEN)
    assert torch.equal(front.embed(ids, position=2), zoo.front(arch).embed(ids, position=2))
    assert torch.equal(head.logits(hidden), zoo.head(arch).logits(hidden))


def test_progress_counts_up_to_all_bytes(zoo: Zoo) -> None:
    seen: list[tuple[int, int]] = []
    load_blocks(zoo.checkpoint("llama"), Span(0, 4), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 0


def test_blocks_the_model_does_not_have_are_refused(zoo: Zoo) -> None:
    with pytest.raises(InvalidSpan):
        load_blocks(zoo.checkpoint("llama"), Span(3, 5))


@pytest.mark.parametrize(
    ("arch", "name", "part"),
    [
        ("llama", "model.layers.1.mlp.up_proj.weight", Span(0, 2)),
        ("mixtral", "model.layers.1.block_sparse_moe.experts.2.w1.weight", Span(0, 2)),
        ("gpt_neox", "embed_out.weight", "head"),
        ("llama", "model.norm.weight", "head"),
        ("llama_tied", "model.embed_tokens.weight", "head"),
        ("bloom", "word_embeddings_layernorm.weight", "front"),
    ],
)
def test_a_weight_that_is_missing_is_named_and_never_made_up(
    zoo: Zoo, tmp_path: Path, arch: str, name: str, part: Span | str
) -> None:
    folder = Path(shutil.copytree(zoo.folder(arch), tmp_path / "copy"))
    index_path = folder / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    full = next(known for known in index["weight_map"] if known.endswith(name))
    del index["weight_map"][full]
    index_path.write_text(json.dumps(index))
    checkpoint = open_checkpoint(str(folder))
    load: Any = {"front": load_front, "head": load_head}.get(str(part)) or partial(load_blocks, span=part)
    # experts are fused into one tensor, so that one too few is a wrong shape
    with pytest.raises(WeightsCorrupt if arch == "mixtral" else WeightsMissing):
        load(checkpoint)


def test_a_tensor_the_index_promises_and_the_file_lacks_is_missing(copy: Path) -> None:
    rewrite(copy, "model.layers.1.mlp.up_proj.weight", None)
    with pytest.raises(WeightsMissing) as caught:
        load_blocks(open_checkpoint(str(copy)), Span(1, 2))
    assert caught.value.names == ["model.layers.1.mlp.up_proj.weight"]


def test_a_tensor_of_another_shape_is_corrupt(copy: Path) -> None:
    rewrite(copy, "model.layers.1.mlp.up_proj.weight", torch.zeros(3, 3))
    with pytest.raises(WeightsCorrupt):
        load_blocks(open_checkpoint(str(copy)), Span(1, 2))


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_file_is_corrupt(copy: Path, size: int) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    path = copy / json.loads((copy / "model.safetensors.index.json").read_text())["weight_map"][name]
    content = path.read_bytes()
    path.write_bytes(content[:size])
    with pytest.raises(WeightsCorrupt):
        load_blocks(open_checkpoint(str(copy)), Span(1, 2))


def test_a_file_truncated_after_its_header_was_read_is_corrupt(copy: Path) -> None:
    checkpoint = open_checkpoint(str(copy))
    entry = checkpoint.entry("model.layers.1.mlp.up_proj.weight")
    path = copy / entry.file
    path.write_bytes(path.read_bytes()[: entry.end - 1])
    with pytest.raises(WeightsCorrupt):
        checkpoint.read([entry.name])


def test_a_missing_shard_is_missing(copy: Path) -> None:
    for path in copy.glob("*.safetensors"):
        path.unlink()
    with pytest.raises(WeightsMissing):
        load_blocks(open_checkpoint(str(copy)), Span(1, 2))


@pytest.mark.parametrize("index", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": "../../etc/passwd"}}'])
def test_a_hostile_index_is_corrupt(copy: Path, index: str) -> None:
    (copy / "model.safetensors.index.json").write_text(index)
    with pytest.raises(WeightsCorrupt):
        load_blocks(open_checkpoint(str(copy)), Span(1, 2))


@pytest.mark.parametrize("config", ["", "{}", '{"model_type": "no such thing"}', "[1]"])
def test_a_config_nobody_can_read_is_unsupported(copy: Path, config: str) -> None:
    (copy / "config.json").write_text(config)
    with pytest.raises(UnsupportedModel):
        _ = open_checkpoint(str(copy)).num_blocks


def test_an_architecture_without_a_causal_lm_is_unsupported(copy: Path) -> None:
    (copy / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(UnsupportedModel):
        load_front(open_checkpoint(str(copy)))


def test_a_directory_that_is_not_there_is_a_model_error(tmp_path: Path) -> None:
    for ref in (str(tmp_path / "none"), "./none", "~/none/such/thing", "none"):
        with pytest.raises(ModelError):
            open_checkpoint(ref)


def test_a_directory_without_a_config_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        _ = open_checkpoint(str(tmp_path)).config


def test_a_checkpoint_without_a_tokenizer_says_so(zoo: Zoo) -> None:
    with pytest.raises(ModelError, match="tokenizer"):
        zoo.checkpoint("llama").tokenizer()


def test_end_of_text_ids_come_from_the_generation_config_first(copy: Path) -> None:
    assert open_checkpoint(str(copy)).eos_token_ids == (2,)
    (copy / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert open_checkpoint(str(copy)).eos_token_ids == (7, 9)


@pytest.mark.parametrize("ref", ["hf:some-org/some-model", "some-org/some-model"])
def test_a_hub_model_out_of_reach_is_a_clear_error(tmp_path: Path, ref: str) -> None:
    with pytest.raises(ModelError, match=r"config\.json of some-org/some-model"):
        _ = open_checkpoint(ref, cache_dir=tmp_path).config


def test_a_hub_model_in_the_cache_loads_with_only_the_shards_of_the_span(zoo: Zoo, tmp_path: Path) -> None:
    repo = tmp_path / "models--org--tiny"
    snapshot = repo / "snapshots" / ("a" * 40)
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("a" * 40)
    shutil.copytree(zoo.folder("llama"), snapshot)
    checkpoint = open_checkpoint("org/tiny", cache_dir=tmp_path)
    needed = {
        file
        for name, file in (checkpoint.weight_files or {}).items()
        if name.startswith(("model.layers.1.", "model.layers.2."))
    }
    spare = [path for path in snapshot.glob("*.safetensors") if path.name not in needed]
    assert spare
    for path in spare:
        path.unlink()
    assert load_blocks(checkpoint, Span(1, 3)).num_blocks == 2
    with pytest.raises(ModelError, match="cannot get"):
        load_front(checkpoint)


def test_over_http_only_headers_and_the_tensors_of_the_span_travel(
    zoo: Zoo, server: RangeServer, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(server.url, cache_dir=tmp_path)
    blocks = load_blocks(checkpoint, Span(1, 2))
    files = set(checkpoint._headers)
    sent = sum(count for file, count in server.sent.items() if file.endswith(".safetensors"))
    headers = sum(
        int.from_bytes((server.folder / f).read_bytes()[:8], "little") + 8 + 1 for f in files
    )  # 1 for the size
    assert sent == headers + sum(p.nbytes for p in blocks.parameters())
    hidden = torch.randn(1, 5, HIDDEN)
    local = zoo.blocks("llama", Span(1, 2))
    assert torch.equal(blocks.forward(hidden, blocks.new_cache(1, 5)), local.forward(hidden, local.new_cache(1, 5)))


def test_over_http_the_second_load_comes_from_disk(server: RangeServer, tmp_path: Path) -> None:
    load_blocks(open_checkpoint(server.url, cache_dir=tmp_path), Span(1, 2))
    server.sent.clear()
    load_blocks(open_checkpoint(server.url, cache_dir=tmp_path), Span(1, 2))
    assert all(count == 1 for file, count in server.sent.items() if file.endswith(".safetensors"))


def test_a_spoilt_cache_is_fetched_again(zoo: Zoo, server: RangeServer, tmp_path: Path) -> None:
    load_blocks(open_checkpoint(server.url, cache_dir=tmp_path), Span(1, 2))
    for path in tmp_path.rglob("ranges/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    again = load_blocks(open_checkpoint(server.url, cache_dir=tmp_path), Span(1, 2))
    for got, expected in zip(again.parameters(), zoo.blocks("llama", Span(1, 2)).parameters(), strict=True):
        assert torch.equal(got, expected)


def test_a_broken_connection_goes_on_where_it_broke(zoo: Zoo, server: RangeServer, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(server.url, cache_dir=tmp_path)
    names = [n for n in checkpoint.tensor_names if n.startswith("model.layers.1.")]
    for name in names:
        checkpoint.entry(name)
    server.cut_after = [100, 7]
    server.sent.clear()
    got = checkpoint.read(names)
    assert sum(server.sent.values()) == sum(tensor.nbytes for tensor in got.values())
    expected = zoo.checkpoint("llama").read(names)
    assert all(torch.equal(got[name], expected[name]) for name in names)


def test_a_server_without_ranges_is_refused_before_whole_files_travel(server: RangeServer, tmp_path: Path) -> None:
    server.ranges_allowed = False
    with pytest.raises(ModelError, match="range request"):
        load_blocks(open_checkpoint(server.url, cache_dir=tmp_path), Span(1, 2))


def test_a_server_that_is_not_there_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        _ = open_checkpoint("http://127.0.0.1:9/model", cache_dir=tmp_path).config


def test_a_shard_the_server_lacks_is_missing(copy: Path, tmp_path: Path) -> None:
    for path in copy.glob("*.safetensors"):
        path.unlink()
    with range_server(copy) as server, pytest.raises(WeightsMissing):
        load_blocks(open_checkpoint(server.url, cache_dir=tmp_path / "cache"), Span(1, 2))
