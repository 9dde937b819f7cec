"""Drafters: what followed the same words before, and a small model whose cache follows what came true."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from client_world import CONTEXT, greedy_ids, make_checkpoint
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, MambaConfig, PreTrainedTokenizerFast

from corolla.draft_model import DraftModel
from corolla.drafter import MAX_DRAFT, PromptLookup
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.sampling import Sampler, SamplingParams
from corolla_core.protocol.errors import UnsupportedModel

GREEDY = Sampler(SamplingParams(max_tokens=64), [1])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> DraftModel:
    torch.set_num_threads(1)
    return DraftModel(str(checkpoint.folder), tokenizer=checkpoint.tokenizer())


def looked_up(ids: list[int], count: int = 4) -> tuple[int, list[int]]:
    lookup = PromptLookup()
    lookup.take(ids)
    hope = lookup.hope()
    return hope.kind, lookup.draft(min(count, hope.most), GREEDY)


def test_the_longest_match_is_taken_and_of_those_the_latest() -> None:
    assert looked_up([1, 2, 3, 9, 8, 7, 2, 3, 5, 6, 1, 2, 3], 3) == (3, [9, 8, 7])
    assert looked_up([2, 3, 9, 8, 2, 3, 5, 6, 2, 3], 2) == (2, [5, 6])
    assert looked_up([1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5], 2)[0] == PromptLookup.LONGEST


def test_where_nothing_repeats_nothing_is_guessed() -> None:
    assert looked_up([1, 2, 3, 4]) == (0, [])
    assert looked_up([]) == (0, [])


def test_a_match_that_runs_into_its_own_end_goes_on_in_circles() -> None:
    assert looked_up([7, 7, 7], 5) == (2, [7] * 5)
    assert looked_up([1, 2, 3, 1, 2], 7) == (2, [3, 1, 2, 3, 1, 2, 3])


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 40))
def test_lookup_is_what_searching_the_whole_text_finds(ids: list[int], cut: int) -> None:
    lookup = PromptLookup()
    lookup.take(ids[:cut])
    lookup.hope()
    lookup.take(ids[cut:])
    for length in range(min(PromptLookup.LONGEST, len(ids)), 0, -1):
        ends = [end for end in range(length, len(ids)) if ids[end - length : end] == ids[len(ids) - length :]]
        if ends:
            following = ids[ends[-1] :]
            assert lookup.hope().kind == length
            assert lookup.draft(6, GREEDY) == (following * 6)[:6]
            return
    assert lookup.hope().most == 0


def test_a_draft_model_says_what_it_would_generate(checkpoint: Checkpoint, model: DraftModel) -> None:
    prompt = [3, 14, 15, 92, 65]
    drafter = model.drafter(100)
    drafter.take(prompt)
    assert tuple(drafter.draft(9, GREEDY)) == greedy_ids(checkpoint, prompt, 9)


@pytest.mark.parametrize("right", range(7))
def test_after_any_number_of_right_guesses_it_drafts_as_if_it_had_read_the_text(
    checkpoint: Checkpoint, model: DraftModel, right: int
) -> None:
    prompt = [3, 14, 15, 92, 65]
    drafter = model.drafter(100)
    drafter.take(prompt)
    guessed = drafter.draft(6, GREEDY)
    other = next(token for token in range(50, 99) if token not in guessed)
    drafter.take([*guessed[:right], other])
    text = [*prompt, *guessed[:right], other]
    assert tuple(drafter.draft(5, GREEDY)) == greedy_ids(checkpoint, text, 5)
    drafter.take([7, 8])  # a step without a draft
    drafter.take([9])
    assert tuple(drafter.draft(5, GREEDY)) == greedy_ids(checkpoint, [*text, 7, 8, 9], 5)


def test_a_draft_model_stops_where_its_context_ends(model: DraftModel) -> None:
    assert model.context == CONTEXT
    drafter = model.drafter(10)
    drafter.take([1, 2, 3])
    assert drafter.hope().most == 8
    assert len(drafter.draft(8, GREEDY)) == 8
    drafter.take([4] * 7)
    assert drafter.hope().most == 1
    drafter.take([5])
    assert drafter.hope().most == 0
    drafter.take([6, 7])
    assert drafter.hope().most == 0


def model_picks(model: DraftModel, ids: list[int], sampler: Sampler) -> list[int]:
    drafter = model.drafter(100)
    drafter.take(ids)
    return drafter.draft(1, sampler)


def test_it_samples_by_the_random_numbers_that_the_text_will_be_sampled_by(model: DraftModel) -> None:
    prompt = [3, 14, 15, 92, 65]
    sampler = Sampler(SamplingParams(max_tokens=32, temperature=1.5, top_p=0.9, repetition_penalty=1.2, seed=4), prompt)
    drafter = model.drafter(100)
    drafter.take(prompt)
    guessed = drafter.draft(8, sampler.fork())
    written = []
    for _ in guessed:  # the text itself, were the draft model the large one
        written += model_picks(model, [*prompt, *written], sampler)
    assert written == guessed


def test_a_model_that_counts_other_tokens_cannot_draft(checkpoint: Checkpoint, tmp_path: Path) -> None:
    tokenizer = checkpoint.tokenizer()
    tokenizer.add_tokens(["another"])
    with pytest.raises(UnsupportedModel):
        DraftModel(str(checkpoint.folder), tokenizer=tokenizer)


def test_a_model_with_a_state_that_cannot_be_rolled_back_cannot_draft(checkpoint: Checkpoint, tmp_path: Path) -> None:
    tokenizer: PreTrainedTokenizerFast = checkpoint.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    config = MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, state_size=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="rolled back"):
        DraftModel(str(tmp_path), tokenizer=tokenizer)


def test_no_more_is_offered_than_a_step_takes(model: DraftModel) -> None:
    drafter = model.drafter(400)
    drafter.take([1, 2, 3])
    assert drafter.hope().most == MAX_DRAFT
