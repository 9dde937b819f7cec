"""Block ranges against plain transformers: the same numbers, bit for bit, however the model is cut and fed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import BLOCKS, HIDDEN, ZOO, Plain, Zoo, tokens

from corolla_core.model.block_range import load_blocks
from corolla_core.protocol.span import Span

cuts = st.sets(st.integers(1, BLOCKS - 1))
chunks = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@pytest.mark.parametrize("arch", ZOO)
@given(cuts=cuts, chunks=chunks, batch=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_any_split_fed_in_any_chunks_equals_the_whole_model(
    zoo: Zoo, arch: str, cuts: set[int], chunks: list[int], batch: int, seed: int
) -> None:
    chain, plain = zoo.chain(arch, cuts, batch=batch), Plain(zoo.reference(arch))
    # every example ends in decoding, one token at a time
    for step, count in enumerate([*chunks, 1, 1, 1]):
        ids = tokens(seed + step, batch, count)
        torch.testing.assert_close(chain.logits(ids), plain.logits(ids), rtol=0, atol=0)


@pytest.mark.parametrize("arch", ZOO)
def test_greedy_text_is_what_generate_writes(zoo: Zoo, arch: str) -> None:
    ids = tokens(5, 2, 7)
    expected = zoo.reference(arch).generate(
        ids, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0, attention_mask=torch.ones_like(ids)
    )
    chain = zoo.chain(arch, {1, 3}, batch=2)
    step, written = ids, [ids]
    for _ in range(20):
        step = chain.logits(step)[:, -1].argmax(-1, keepdim=True)
        written.append(step)
    assert torch.equal(torch.cat(written, dim=1), expected)


@pytest.mark.parametrize("arch", ZOO)
def test_hidden_states_between_spans_are_what_the_layers_exchange(zoo: Zoo, arch: str) -> None:
    ids = tokens(3, 1, 11)
    with torch.inference_mode():
        inside = zoo.reference(arch)(ids, output_hidden_states=True).hidden_states
    hidden = zoo.front(arch).embed(ids, position=0)
    for block in range(BLOCKS - 1):
        # transformers lists what goes into each block, and last of all the normed output
        torch.testing.assert_close(hidden, inside[block], rtol=0, atol=0)
        part = zoo.blocks(arch, Span(block, block + 1))
        hidden = part.forward(hidden, part.new_cache(1, 11))


@pytest.mark.parametrize("arch", ZOO)
def test_kv_bytes_is_what_a_cache_takes(zoo: Zoo, arch: str) -> None:
    part = zoo.blocks(arch, Span(1, 4))
    cache = part.new_cache(3, 17)
    assert cache.nbytes == 0
    part.forward(torch.randn(3, 9, HIDDEN), cache)
    assert cache.nbytes == part.kv_bytes(3, 17) > 0
    part.forward(torch.randn(3, 8, HIDDEN), cache)
    assert cache.nbytes == part.kv_bytes(3, 17)


@pytest.mark.parametrize("arch", ["llama", "gpt_neox", "mixtral"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_equals_transformers_in_half_precision(zoo: Zoo, arch: str, dtype: torch.dtype) -> None:
    whole = type(zoo.reference(arch)).from_pretrained(zoo.folder(arch), dtype=dtype).eval()
    ids = tokens(1, 1, 9)
    with torch.inference_mode():
        inside = whole(ids, output_hidden_states=True).hidden_states
    part = load_blocks(zoo.checkpoint(arch), Span(1, 3), dtype=dtype)
    assert part.dtype == dtype
    torch.testing.assert_close(part.forward(inside[1], part.new_cache(1, 9)), inside[3], rtol=0, atol=0)
