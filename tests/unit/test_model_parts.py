"""What the parts of a model refuse, and architectures at the edge of what can be cut into spans."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from model_zoo import BLOCKS, HIDDEN, VOCAB, ZOO, Zoo
from transformers import AutoModelForCausalLM

from corolla_core.model.block_range import load_blocks
from corolla_core.model.cache import rolls_back
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.front import load_front
from corolla_core.protocol.errors import InvalidInput, PositionMismatch, TensorRejected, UnsupportedModel
from corolla_core.protocol.span import Span


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    torch.set_num_threads(1)
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def mamba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.MambaConfig(vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=BLOCKS, state_size=4)
    folder = tmp_path_factory.mktemp("mamba")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("ids", [[[VOCAB]], [[-1]], [[3, 10**12]], [[]], [3, 4]])
def test_ids_outside_the_vocabulary_are_refused(zoo: Zoo, ids: list[object]) -> None:
    with pytest.raises(InvalidInput):
        zoo.front("llama").embed(torch.tensor(ids, dtype=torch.int64), position=0)


def test_positions_beyond_the_learned_ones_are_refused(zoo: Zoo) -> None:
    front = zoo.front("gpt2")
    ids = torch.full((1, 8), 5)
    assert front.embed(ids, position=120).shape == (1, 8, HIDDEN)
    with pytest.raises(InvalidInput, match="128"):
        front.embed(ids, position=121)


@pytest.mark.parametrize("shape", [(1, HIDDEN), (1, 1, HIDDEN + 1), (1, 1, 1, HIDDEN)])
def test_a_head_takes_only_hidden_states_of_its_size(zoo: Zoo, shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorRejected):
        zoo.head("llama").logits(torch.zeros(shape))


@pytest.mark.parametrize(("batch", "max_tokens"), [(0, 5), (5, 0), (-1, 5)])
def test_an_empty_cache_is_refused(zoo: Zoo, batch: int, max_tokens: int) -> None:
    with pytest.raises(InvalidInput):
        zoo.blocks("llama", Span(0, 1)).new_cache(batch, max_tokens)


def test_weights_load_only_as_floating_point(zoo: Zoo) -> None:
    with pytest.raises(InvalidInput):
        load_blocks(zoo.checkpoint("llama"), Span(0, 1), dtype=torch.int8)


def test_a_model_without_attention_runs_but_says_that_it_cannot_roll_back(mamba: Path) -> None:
    part = load_blocks(open_checkpoint(str(mamba)), Span(1, 3))
    cache = part.new_cache(2, 10)
    part.forward(torch.randn(2, 4, HIDDEN), cache)
    cache.reorder([1, 1])
    assert cache.nbytes == part.kv_bytes(2, 10) == part.kv_bytes(2, 1000)
    with pytest.raises(PositionMismatch, match="rolled back"):
        cache.crop(2)
    assert cache.length == 4
    assert not rolls_back(open_checkpoint(str(mamba)).text_config)


@pytest.mark.parametrize("arch", ZOO)
def test_what_can_be_rolled_back_is_known_from_the_config(zoo: Zoo, arch: str) -> None:
    assert rolls_back(zoo.checkpoint(arch).text_config)


def test_blocks_that_do_not_run_without_others_are_unsupported(tmp_path: Path) -> None:
    config = transformers.Qwen3NextConfig(
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_value_heads=2,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="by themselves"):
        load_blocks(open_checkpoint(str(tmp_path)), Span(0, 1))


def test_a_front_that_only_embeds_skips_the_decoder_and_one_that_does_more_does_not(zoo: Zoo) -> None:
    for arch, alone in {"llama": True, "gemma": True, "bloom": False, "gpt2": False, "opt": False}.items():
        assert load_front(zoo.checkpoint(arch))._embedding_alone is alone
