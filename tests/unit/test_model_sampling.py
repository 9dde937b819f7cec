"""Choosing tokens as transformers does, and showing text without stop strings or half characters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_zoo import Zoo, tokens
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from corolla_core.model.sampling import Sampler, SamplingParams, StopWatcher
from corolla_core.protocol.errors import InvalidInput, TensorRejected


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    torch.set_num_threads(1)
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A byte-level tokenizer: one token a byte, a few of several characters, and one special token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["st", "op", "lo"]
    vocab = {piece: index for index, piece in enumerate([*alphabet, *merged])}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[("s", "t"), ("o", "p"), ("l", "o")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.8},
        {"temperature": 1.3, "top_k": 7},
        {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.3},
        {"repetition_penalty": 1.5},
        {},
    ],
)
@pytest.mark.parametrize("seed", [0, 41])
def test_the_same_seed_draws_what_generate_draws(zoo: Zoo, params: dict[str, Any], seed: int) -> None:
    prompt, count = tokens(4, 1, 5), 25
    sampled = {"do_sample": "temperature" in params, "top_k": 0, **params}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        expected = zoo.reference("llama").generate(
            prompt, max_new_tokens=count, eos_token_id=None, attention_mask=torch.ones_like(prompt), **sampled
        )
    chain = zoo.chain("llama", {2})
    sampler = Sampler(SamplingParams(max_tokens=count, seed=seed, **params), prompt[0].tolist())
    step, drawn = prompt, prompt[0].tolist()
    for _ in range(count):
        drawn.append(sampler.pick(chain.logits(step)[0, -1]))
        step = torch.tensor([drawn[-1:]])
    assert drawn == expected[0].tolist()


def test_without_a_seed_two_samplers_differ() -> None:
    params = SamplingParams(max_tokens=64, temperature=1.0)
    flat = torch.zeros(1000)
    draws = [[s.pick(flat) for _ in range(64)] for s in (Sampler(params, [1]), Sampler(params, [1]))]
    assert draws[0] != draws[1]


def test_a_fork_goes_on_as_the_sampler_would_and_leaves_it_as_it_is() -> None:
    params = SamplingParams(max_tokens=64, temperature=1.0, repetition_penalty=1.5, seed=7)
    flat = torch.zeros(50)
    sampler, other = Sampler(params, [1]), Sampler(params, [1])
    began = [sampler.pick(flat) for _ in range(10)]
    assert began == [other.pick(flat) for _ in range(10)]
    fork = sampler.fork()
    rest = [fork.pick(flat) for _ in range(10)]
    assert rest == [sampler.pick(flat) for _ in range(10)] == [other.pick(flat) for _ in range(10)]


def test_a_sampler_does_not_disturb_the_global_generator() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    Sampler(SamplingParams(max_tokens=4, temperature=1.0, seed=9), [1]).pick(torch.zeros(10))
    assert torch.equal(torch.rand(1), expected)


def test_sampling_outlives_max_tokens() -> None:
    sampler = Sampler(SamplingParams(max_tokens=1, repetition_penalty=2.0), [0])
    assert [sampler.pick(torch.tensor([3.0, 2.0, 1.0])) for _ in range(3)] == [1, 0, 0]


@pytest.mark.parametrize(
    "logits",
    [torch.zeros(0), torch.zeros(1, 4), torch.tensor([0.0, float("nan")]), torch.tensor([float("inf"), 0.0])],
)
def test_logits_that_are_no_row_of_numbers_are_rejected(logits: torch.Tensor) -> None:
    with pytest.raises(TensorRejected):
        Sampler(SamplingParams(max_tokens=1), [1]).pick(logits)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": "1"},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_k": -1},
        {"top_k": 2.0},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
        {"seed": -1},
        {"seed": 2**63},
        {"stop": "word"},
        {"stop": ("",)},
        {"stop": ("x" * 257,)},
        {"stop": ("x",) * 17},
        {"stop": (7,)},
    ],
)
def test_impossible_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        SamplingParams(**{"max_tokens": 5, **wrong})


def watch(tokenizer: Any, ids: list[int], stop: tuple[str, ...] = ()) -> tuple[list[str], str | None]:
    watcher = StopWatcher(tokenizer, stop)
    pieces = [watcher.push(token) for token in ids]
    return [*pieces, watcher.flush()], watcher.stopped


@given(text=st.text(max_size=40))
@settings(max_examples=200)
def test_pieces_add_up_to_the_text(tokenizer: Any, text: str) -> None:
    pieces, stopped = watch(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    assert stopped is None


@given(ids=st.lists(st.integers(0, 258), max_size=40))
@settings(max_examples=200)
def test_any_tokens_add_up_to_what_they_decode_to(tokenizer: Any, ids: list[int]) -> None:
    pieces, _ = watch(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)


@given(
    text=st.text(alphabet="stoplé😀", max_size=30), stop=st.lists(st.text("stoplé", min_size=1, max_size=5), max_size=3)
)
@settings(max_examples=300)
def test_text_ends_before_the_stop_string_complete_first_however_tokens_cut_it(
    tokenizer: Any, text: str, stop: list[str]
) -> None:
    pieces, stopped = watch(tokenizer, tokenizer.encode(text), tuple(stop))
    complete = [(text.find(s) + len(s), text.find(s), s) for s in stop if s in text]
    _, end, met = min(complete, default=(0, len(text), None))
    assert "".join(pieces) == text[:end]
    assert stopped == met


def test_a_character_of_several_tokens_is_shown_whole(tokenizer: Any) -> None:
    ids = tokenizer.encode("😀é")
    assert len(ids) == 6
    assert watch(tokenizer, ids)[0] == ["", "", "", "😀", "", "é", ""]


def test_text_that_might_begin_a_stop_string_waits(tokenizer: Any) -> None:
    watcher = StopWatcher(tokenizer, ("stop",))
    pushed = [watcher.push(token) for token in tokenizer.encode("a stow")]
    assert "".join(pushed) == "a stow"
    assert pushed[2:4] == ["", "" if len(pushed) > 4 else "stow"]
    held = [watcher.push(token) for token in tokenizer.encode("sto")]
    assert held == ["", ""]
    assert watcher.push(tokenizer.encode("p")[0]) == ""
    assert watcher.stopped == "stop"
    assert watcher.push(tokenizer.encode("x")[0]) == ""
    assert watcher.flush() == ""


def test_special_tokens_are_not_shown(tokenizer: Any) -> None:
    ids = [*tokenizer.encode("ab"), tokenizer.eos_token_id, *tokenizer.encode("c")]
    assert "".join(watch(tokenizer, ids)[0]) == "abc"


def test_bytes_that_are_no_text_do_not_hold_everything_back(tokenizer: Any) -> None:
    watcher = StopWatcher(tokenizer)
    lone = tokenizer.encode("é")[0]
    shown = "".join(watcher.push(lone) for _ in range(64))
    assert len(shown) > 30
    assert set(shown) == {"\ufffd"}


def test_penalties_are_taken_from_what_the_text_has_and_not_from_its_prompt() -> None:
    logits = torch.tensor([3.0, 2.4, 2.0])
    present = Sampler(SamplingParams(max_tokens=4, presence_penalty=0.8), [0, 1])
    assert [present.pick(logits) for _ in range(4)] == [0, 1, 0, 0]
    frequent = Sampler(SamplingParams(max_tokens=4, frequency_penalty=0.8), [0, 1])
    assert [frequent.pick(logits) for _ in range(4)] == [0, 1, 0, 2]


class Alternating:
    """Allows token 0 and token 1 in turns, three in all."""

    def __init__(self, pushed: tuple[int, ...] = ()) -> None:
        self.pushed = pushed

    @property
    def complete(self) -> bool:
        return len(self.pushed) == 3

    def allowed(self) -> torch.Tensor:
        return torch.arange(3) == len(self.pushed) % 2

    def push(self, token: int) -> None:
        self.pushed += (token,)

    def fork(self) -> Alternating:
        return Alternating(self.pushed)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_only_what_a_constraint_allows_is_picked_and_a_fork_has_its_own(temperature: float) -> None:
    constraint = Alternating()
    sampler = Sampler(SamplingParams(max_tokens=3, temperature=temperature, top_p=0.9), [1], constraint=constraint)
    flat = torch.zeros(3)
    assert sampler.pick(flat) == 0
    assert [sampler.fork().pick(flat) for _ in range(2)] == [1, 1]
    assert not sampler.complete
    assert [sampler.pick(flat) for _ in range(2)] == [1, 0]
    assert sampler.complete
    assert constraint.pushed == (0, 1, 0)
