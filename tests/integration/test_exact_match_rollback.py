"""What beams, rollback and failover do to caches, against plain transformers or an undisturbed session."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import BLOCKS, HIDDEN, VOCAB, ZOO, Zoo, tokens

from corolla_core.protocol.errors import InvalidInput, NotServed, PositionMismatch, TensorRejected
from corolla_core.protocol.span import Span


@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize("arch", ZOO)
def test_beam_search_finds_what_generate_finds(zoo: Zoo, arch: str, beams: int) -> None:
    prompt, new = tokens(9, 1, 6), 10
    expected = zoo.reference(arch).generate(
        prompt,
        num_beams=beams,
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        attention_mask=torch.ones_like(prompt),
    )
    chain = zoo.chain(arch, {2}, batch=beams)
    rows = prompt.repeat(beams, 1)
    # the beams are equal at first: all but one start hopeless
    scores = torch.tensor([0.0] + [-1e9] * (beams - 1))
    step = rows
    for _ in range(new):
        chances = torch.log_softmax(chain.logits(step)[:, -1], dim=-1) + scores[:, None]
        scores, best = chances.flatten().topk(beams)
        origin, token = best // VOCAB, best % VOCAB
        chain.reorder(origin.tolist())
        step = token[:, None]
        rows = torch.cat([rows[origin], step], dim=1)
    assert torch.equal(rows[:1], expected)


@pytest.mark.parametrize("arch", ZOO)
@given(fed=st.integers(1, 20), kept=st.integers(0, 20), then=st.integers(1, 12))
@settings(max_examples=8, deadline=None)
def test_a_rolled_back_session_goes_on_as_if_nothing_had_been(
    zoo: Zoo, arch: str, fed: int, kept: int, then: int
) -> None:
    kept = min(kept, fed)
    disturbed, calm = zoo.chain(arch, {1}, batch=2), zoo.chain(arch, {1}, batch=2)
    ids, wrong, right = tokens(1, 2, kept), tokens(2, 2, fed - kept), tokens(3, 2, then)
    for chain in (disturbed, calm):
        if kept:
            chain.logits(ids)
    if fed > kept:
        disturbed.logits(wrong)
    disturbed.crop(kept)
    torch.testing.assert_close(disturbed.logits(right), calm.logits(right), rtol=0, atol=0)
    torch.testing.assert_close(disturbed.logits(right[:, :1]), calm.logits(right[:, :1]), rtol=0, atol=0)


@pytest.mark.parametrize("arch", ZOO)
def test_a_view_of_some_blocks_serves_as_if_they_alone_were_loaded(zoo: Zoo, arch: str) -> None:
    whole = zoo.blocks(arch, Span(0, BLOCKS))
    for start in range(BLOCKS):
        for end in range(start + 1, BLOCKS + 1):
            view, alone = whole.sub(Span(start, end)), zoo.blocks(arch, Span(start, end))
            caches = view.new_cache(1, 20), alone.new_cache(1, 20)
            for count in (8, 1, 1):
                hidden = torch.randn(1, count, HIDDEN)
                outputs = view.forward(hidden, caches[0]), alone.forward(hidden, caches[1])
                torch.testing.assert_close(*outputs, rtol=0, atol=0)
            assert view.num_blocks == end - start
            assert view.kv_bytes(2, 50) == alone.kv_bytes(2, 50)


def test_sessions_on_one_range_and_its_views_do_not_touch_each_other(zoo: Zoo) -> None:
    whole = zoo.blocks("mistral", Span(0, BLOCKS))
    parts = [whole, whole.sub(Span(0, 2)), whole.sub(Span(1, 4)), whole]
    inputs = [torch.randn(1, 6 + i, HIDDEN) for i in range(len(parts))]
    alone = []
    for part, hidden in zip(parts, inputs, strict=True):
        cache = part.new_cache(1, 20)
        alone.append([part.forward(hidden, cache), part.forward(hidden[:, :1], cache)])
    caches = [part.new_cache(1, 20) for part in parts]
    first = [p.forward(h, c) for p, h, c in zip(parts, inputs, caches, strict=True)]
    second = [p.forward(h[:, :1], c) for p, h, c in zip(parts, inputs, caches, strict=True)]
    for together, apart in zip(zip(first, second, strict=True), alone, strict=True):
        torch.testing.assert_close(list(together), apart, rtol=0, atol=0)


def test_views_share_weights_and_are_made_once(zoo: Zoo) -> None:
    whole = zoo.blocks("llama", Span(0, BLOCKS))
    view = whole.sub(Span(1, 3))
    assert view is whole.sub(Span(1, 3))
    assert view.sub(Span(2, 3)).span == Span(2, 3)
    assert whole.sub(Span(0, BLOCKS)) is whole
    held = {parameter.data_ptr() for parameter in whole.parameters()}
    assert {parameter.data_ptr() for parameter in view.parameters()} < held


def test_a_view_outside_the_range_is_not_served(zoo: Zoo) -> None:
    with pytest.raises(NotServed):
        zoo.blocks("llama", Span(1, 3)).sub(Span(2, 4))


def test_a_step_that_does_not_fit_leaves_the_cache_alone(zoo: Zoo) -> None:
    part = zoo.blocks("llama", Span(1, 3))
    cache = part.new_cache(2, 10)
    good = torch.randn(2, 4, HIDDEN)
    expected = part.forward(good, cache)
    for shape in [(1, 4, HIDDEN), (2, 4, HIDDEN + 1), (2, HIDDEN), (2, 4, 1, HIDDEN)]:
        with pytest.raises(TensorRejected):
            part.forward(torch.zeros(shape), cache)
    for count in (0, 7):
        with pytest.raises(PositionMismatch):
            part.forward(torch.zeros(2, count, HIDDEN), cache)
    assert cache.length == 4
    cache.crop(0)
    torch.testing.assert_close(part.forward(good, cache), expected, rtol=0, atol=0)


def test_a_cache_of_one_range_is_refused_by_another(zoo: Zoo) -> None:
    cache = zoo.blocks("llama", Span(0, 1)).new_cache(1, 10)
    with pytest.raises(InvalidInput):
        zoo.blocks("llama", Span(1, 3)).forward(torch.zeros(1, 1, HIDDEN), cache)


@pytest.mark.parametrize("length", [-1, 5])
def test_rolling_back_to_nowhere_is_refused(zoo: Zoo, length: int) -> None:
    part = zoo.blocks("llama", Span(1, 3))
    cache = part.new_cache(1, 10)
    part.forward(torch.randn(1, 4, HIDDEN), cache)
    with pytest.raises(PositionMismatch):
        cache.crop(length)
    assert cache.length == 4


@pytest.mark.parametrize("indices", [[0], [0, 2], [0, -1], [0, 1, 1], [], [True, 0.5]])
def test_picking_rows_that_are_not_there_is_refused(zoo: Zoo, indices: list[int]) -> None:
    part = zoo.blocks("llama", Span(1, 3))
    cache = part.new_cache(2, 10)
    part.forward(torch.randn(2, 4, HIDDEN), cache)
    with pytest.raises(InvalidInput):
        cache.reorder(indices)
