"""Speculation through the chain: the same text, token for token, with fewer steps; every position paid and audited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client_world import BLOCKS, CONTEXT, HIDDEN, ClientWorld, client_world, fast_policy, greedy_ids, make_checkpoint
from node_peers import PRICE, FakeNode
from signed_sessions import strict
from test_receipts_opened import FakeLine

from corolla.draft_model import DraftModel
from corolla.drafter import MAX_DRAFT, Hope, PromptLookup
from corolla.generation import MakeSpeculator, Tape, TextStream
from corolla.pace import Pace
from corolla.speculation import Speculation, Speculator
from corolla.values import Generation
from corolla.wallet import WalletPolicy
from corolla_core.model.audited_span import load_audited_span
from corolla_core.model.block_range import load_blocks
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.replay import open_rows
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import InvalidInput, PositionMismatch
from corolla_core.protocol.opening import Side
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.span import Span
from corolla_core.protocol.transcript import Entry, Transcript
from corolla_core.protocol.units import Nectar
from corolla_core.protocol.verdict import Outcome, judge
from corolla_core.swarm.messages import Step
from corolla_core.swarm.openings import ask_opening

pytestmark = pytest.mark.anyio
SPANS = {"a": Span(0, 2), "b": Span(2, 4), "c": Span(4, 6)}
STANDBYS = {"a2": Span(0, 2), "b2": Span(2, 4), "c2": Span(4, 6)}
PROMPT = "one two three one two three one two"
TOKENS = 40


class Eager(Pace):
    """Always drafts, three tokens or as many as may be."""

    def choose(self, hope: Any, *, most: int) -> int:
        return min(3, most, hope.most)


class Half:
    """A drafter that knows the text, and is wrong about every third token of it."""

    def __init__(self, text: tuple[int, ...]) -> None:
        self._text = text
        self._at = -1

    def take(self, tokens: Any) -> None:
        self._at = 0 if self._at < 0 else self._at + len(tokens)

    def hope(self) -> Hope:
        return Hope(min(MAX_DRAFT, len(self._text) - self._at), 0, 1.0)

    def draft(self, count: int, sampler: Any) -> list[int]:
        places = range(self._at, self._at + count)
        return [self._text[n] if n % 3 else (self._text[n] + 1) % 256 for n in places]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return make_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(checkpoint: Checkpoint) -> tuple[int, ...]:
    return greedy_ids(checkpoint, list(checkpoint.tokenizer()(PROMPT).input_ids), TOKENS)


def eagerly(drafter: Callable[[], Any]) -> MakeSpeculator:
    async def make(prompt: Any, params: Any) -> Speculator:
        return Speculator(drafter(), Eager(waste=100))

    return make


def stream(world: ClientWorld, params: SamplingParams, drafter: Callable[[], Any], **options: Any) -> TextStream:
    """A text with a draft at every step."""
    return TextStream(
        world.model,
        PROMPT,
        params,
        tape=Tape(world.model),
        open_session=world.engine._open_for,
        close_session=world.engine._close_after,
        make_speculator=eagerly(drafter),
        **options,
    )


async def plain(world: ClientWorld, params: SamplingParams, **options: Any) -> Generation:
    return await world.engine.stream(PROMPT, params, **options).read()


async def test_greedy_text_is_the_same_whatever_is_drafted(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    params = SamplingParams(max_tokens=TOKENS)
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        draft = DraftModel(str(checkpoint.folder), tokenizer=world.model.tokenizer)
        for drafter in (PromptLookup, lambda: Half(undisturbed), lambda: Half((7,) * 99), lambda: draft.drafter(200)):
            made = await stream(world, params, drafter).read()
            assert made.token_ids == undisturbed
            assert made.usage.drafted > 0
            assert world.paid("a") == world.charged("a")
        assert made.usage.accepted == made.usage.drafted  # the draft model is the large one
        prompt = made.usage.prompt_tokens
        # the first token comes with the prompt, the others four to a step
        assert [node.tokens for node in made.usage.per_node] == [prompt + TOKENS - 1] * 3


async def test_a_right_guess_saves_a_step_and_a_wrong_one_is_paid_for(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        steps = 0
        honest = world.nodes["c"].server.on_message

        def count(conn: Any, message: Any, payload: memoryview) -> None:
            nonlocal steps
            steps += isinstance(message, Step) and message.keep > 0
            honest(conn, message, payload)

        world.nodes["c"].server.on_message = count  # type: ignore[method-assign]
        made = await stream(world, SamplingParams(max_tokens=TOKENS), lambda: Half(undisturbed)).read()
        usage = made.usage
        assert 0 < usage.accepted < usage.drafted
        assert steps == TOKENS - usage.accepted
        positions = usage.prompt_tokens + TOKENS - 1 + usage.drafted - usage.accepted
        for name, node in zip(SPANS, usage.per_node, strict=True):
            assert node.tokens == positions
            assert node.cost == positions * 2 * PRICE == world.charged(name) == world.paid(name)
        assert world.wallet.reserved == 0


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.3},
        {"temperature": 1.4, "top_k": 9},
        {"repetition_penalty": 1.5},
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_same_seed_gives_the_same_text_as_without(
    checkpoint: Checkpoint, tmp_path: Path, params: dict[str, Any], seed: int
) -> None:
    sampled = SamplingParams(max_tokens=TOKENS, seed=seed, **params)
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        draft = DraftModel(str(checkpoint.folder), tokenizer=world.model.tokenizer)
        without = await plain(world, sampled, logprobs=True)
        for drafter in (PromptLookup, lambda: Half(without.token_ids), lambda: draft.drafter(200)):
            made = await stream(world, sampled, drafter, logprobs=True).read()
            assert made.token_ids == without.token_ids
            assert made.logprobs == pytest.approx(without.logprobs, abs=1e-5)
            assert made.text == without.text
        assert made.usage.accepted == made.usage.drafted > 0  # it draws by the same random numbers


async def test_a_stop_string_inside_a_draft_ends_the_text_before_it(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        whole = await plain(world, SamplingParams(max_tokens=TOKENS))
        for printable in sorted({c for c in whole.text[3:] if c.isprintable() and c != "\ufffd"})[:6]:
            params = SamplingParams(max_tokens=TOKENS, stop=(printable,))
            without = await plain(world, params)
            made = await stream(world, params, lambda: Half(undisturbed)).read()
            assert (made.text, made.token_ids, made.finish_reason) == (without.text, without.token_ids, "stop")


async def test_an_end_of_text_inside_a_draft_ends_it(tmp_path: Path, undisturbed: tuple[int, ...]) -> None:
    eos = undisturbed[17]
    ending = make_checkpoint(tmp_path / "ending", eos=eos)
    async with client_world(ending, tmp_path, SPANS) as world:
        made = await stream(world, SamplingParams(max_tokens=TOKENS), lambda: Half(undisturbed)).read()
        assert made.finish_reason == "eos"
        assert made.token_ids == undisturbed[: undisturbed.index(eos)]


@pytest.mark.parametrize("tokens", range(1, 9))
async def test_no_more_is_drafted_than_may_be_said(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, tokens: int
) -> None:
    """The session reserves no position for guesses, and the context has none."""
    room = CONTEXT - len(checkpoint.tokenizer()(PROMPT).input_ids)
    policy = fast_policy(prefill_tokens=3)
    async with client_world(checkpoint, tmp_path, SPANS, policy=policy) as world:
        made = await stream(world, SamplingParams(max_tokens=tokens), lambda: Half(undisturbed)).read()
        assert made.token_ids == undisturbed[:tokens]
        assert made.finish_reason == "length"
        if tokens == 8:
            made = await stream(world, SamplingParams(max_tokens=room), PromptLookup).read()
            assert len(made.token_ids) == room
            assert made.usage.drafted > 0


@pytest.mark.parametrize("extra", [0, 1, 2, 7, 40])
async def test_guesses_are_made_only_with_money_that_the_text_will_not_need(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, extra: int
) -> None:
    """A spending limit that allows the text allows it with speculation too."""
    limit = Nectar((len(PROMPT) + TOKENS + extra) * BLOCKS * PRICE)
    async with client_world(checkpoint, tmp_path, SPANS, wallet=WalletPolicy(limit=limit)) as world:
        made = await stream(world, SamplingParams(max_tokens=TOKENS), lambda: Half((7,) * 99)).read()
        assert made.token_ids == undisturbed
        wasted = made.usage.drafted - made.usage.accepted
        assert 0 < wasted <= extra + 1  # the last token is reserved and never sent
        assert made.usage.cost <= limit


async def test_another_sessions_money_is_not_drafted_with(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    policy = WalletPolicy(headroom=2)
    async with client_world(checkpoint, tmp_path, SPANS, wallet=policy) as world:
        texts = [stream(world, SamplingParams(max_tokens=TOKENS), lambda: Half((7,) * 99)) for _ in range(2)]
        for made in await asyncio.gather(*(text.read() for text in texts)):
            assert made.token_ids == undisturbed
        assert world.wallet.reserved == 0


@pytest.mark.parametrize("victim", ["a", "b", "c"])
@pytest.mark.parametrize("at", [1, 8, 21])
async def test_a_death_in_the_midst_of_a_speculative_step_changes_nothing(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, victim: str, at: int
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS) as world:
        for name in SPANS:
            world.directory.throughput[world.nodes[name].account] = 1_000_000
        text = stream(world, SamplingParams(max_tokens=TOKENS), lambda: Half(undisturbed))
        count, alive = 0, True
        async for piece in text:
            count += len(piece.token_ids)
            if count >= at and alive:
                world.kill(victim)
                alive = False
        made = text.generation
        assert made.token_ids == undisturbed
        assert made.usage.failovers == 1
        for name in SPANS:
            if name != victim:  # computed nothing again, and was paid once
                positions = made.usage.prompt_tokens + TOKENS - 1 + made.usage.drafted - made.usage.accepted
                assert world.charged(name) == world.paid(name) == positions * 2 * PRICE


async def test_deaths_one_after_another_change_nothing(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    third = {"a3": Span(0, 2), "b3": Span(2, 4)}
    async with client_world(checkpoint, tmp_path, SPANS | STANDBYS | third) as world:
        for name, speed in zip([*SPANS, *STANDBYS], [9] * 3 + [5] * 3, strict=True):
            world.directory.throughput[world.nodes[name].account] = speed * 100_000
        deaths = {4: ["b"], 5: ["a", "b2"], 12: ["c"], 30: ["a2"]}
        text = stream(world, SamplingParams(max_tokens=TOKENS), lambda: Half(undisturbed))
        count = 0
        async for piece in text:
            count += len(piece.token_ids)
            for name in deaths.pop(count, []):
                world.kill(name)
        assert deaths == {}
        assert text.generation.token_ids == undisturbed


class _Stubborn:
    """A cache that cannot be rolled back, as of a recurrent block."""

    def __init__(self, cache: Any) -> None:
        object.__setattr__(self, "_cache", cache)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._cache, name, value)

    def crop(self, length: int) -> None:
        raise PositionMismatch("this model's state cannot be rolled back", expected=self._cache.length, offered=length)


class _Recurrent:
    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks
        self.made = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blocks, name)

    def new_cache(self, batch: int, max_tokens: int) -> _Stubborn:
        self.made += 1
        return _Stubborn(self._blocks.new_cache(batch, max_tokens))


@pytest.mark.parametrize("stubborn", [["a"], ["b"], ["c"], ["a", "c"], ["a", "b", "c"]])
async def test_a_node_that_cannot_roll_back_gets_the_history_anew_and_the_guessing_ends(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path, stubborn: list[str]
) -> None:
    spans = {name: span for name, span in SPANS.items() if name not in stubborn}
    async with client_world(checkpoint, tmp_path, spans) as world:
        blocks = {name: _Recurrent(load_blocks(checkpoint, SPANS[name])) for name in stubborn}
        for name, part in blocks.items():
            await world.add_node(name, SPANS[name], blocks=part)
        made = await stream(world, SamplingParams(max_tokens=TOKENS), lambda: Half(undisturbed)).read()
        assert made.token_ids == undisturbed
        assert all(2 <= part.made <= 3 for part in blocks.values())
        assert made.usage.drafted <= 3 * 3
        assert {hop.account for hop in made.route} == {node.account for node in world.nodes.values()}
        for name in spans:
            assert world.paid(name) == world.charged(name)


async def test_turns_of_a_conversation_reuse_what_was_guessed_right(checkpoint: Checkpoint, tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=12)
    how = Speculation("lookup", waste=100)
    async with client_world(checkpoint, tmp_path, SPANS) as world, world.engine.chat(speculation=how) as chat:
        chat._make_speculator = eagerly(PromptLookup)
        for text in ("Hello hello hello", "And again and again?", "hello hello"):
            made = await chat.send(text, params)
            prompt = world.model.prompt_ids(chat.messages[:-1])
            assert made.token_ids == greedy_ids(checkpoint, prompt, 12)
            assert made.usage.drafted > 0
        assert made.usage.cached_tokens > 40


async def test_leaving_in_the_midst_of_a_draft_ends_the_session(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        async with stream(world, SamplingParams(max_tokens=TOKENS), lambda: Half(undisturbed)) as text:
            pieces = [await anext(text) for _ in range(6)]
        assert tuple(token for piece in pieces for token in piece.token_ids) == undisturbed[:6]
        assert all(len(piece.token_ids) == 1 for piece in pieces)
        assert [node.server.sessions for node in world.nodes.values()] == [0, 0, 0]
        assert world.wallet.reserved == 0


async def entries(world: ClientWorld, node: FakeNode) -> list[Entry]:
    """A node's receipts of the one session, and the rows it shows for them."""
    mine: list[SignedReceipt] = [signed for signed in world.receipts if signed.signer() == node.account]
    line = FakeLine(world.world, node)
    shown = [await ask_opening(line, signed.receipt) for signed in mine]
    return [
        Entry(signed, rows.rows[Side.INPUTS], rows.rows[Side.OUTPUTS], rows.reorderings)
        for signed, rows in zip(mine, shown, strict=True)
    ]


async def test_the_audit_of_a_session_with_wrong_guesses_passes_and_finds_a_liar(
    checkpoint: Checkpoint, undisturbed: tuple[int, ...], tmp_path: Path
) -> None:
    manifest = Manifest.beside(checkpoint)
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        made = await stream(world, SamplingParams(max_tokens=TOKENS), lambda: Half(undisturbed)).read()
        assert made.usage.accepted < made.usage.drafted
        for name, span in SPANS.items():
            kept = Transcript(tuple(await entries(world, world.nodes[name])))
            assert len(kept.visible) < sum(entry.receipt.n_pos for entry in kept.entries)  # it was rolled back
            span_of = load_audited_span(checkpoint, span, kept.numeric_class, wire=kept.wire, manifest=manifest)
            inputs, claimed = (
                open_rows(rows, wire=kept.wire, hidden_size=HIDDEN, batch=1)
                for rows in (kept.input_rows(), kept.output_rows())
            )
            limits = strict(manifest, [span]).find(kept.numeric_class, kept.wire, span)
            assert judge(span_of.statistics(inputs, claimed, ()), limits).outcome is Outcome.PASSED
            assert judge(span_of.statistics(inputs, claimed.roll(1, 1), ()), limits).outcome is Outcome.FAILED


async def test_speculation_is_asked_for_by_name(checkpoint: Checkpoint, tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=TOKENS)
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        world.engine._load_draft = lambda ref: DraftModel(ref, tokenizer=world.model.tokenizer)
        without = await plain(world, params)
        for by in ("auto", "lookup", str(checkpoint.folder), "off"):
            made = await plain(world, params, speculation=Speculation(by, waste=9))
            assert made.token_ids == without.token_ids
            assert (made.usage.drafted == 0) == (by == "off")


async def test_a_model_that_cannot_roll_back_is_not_speculated_with(checkpoint: Checkpoint, tmp_path: Path) -> None:
    params = SamplingParams(max_tokens=8)
    async with client_world(checkpoint, tmp_path, SPANS) as world:
        world.model.rolls_back = False
        assert (await plain(world, params, speculation=Speculation())).usage.drafted == 0
        with pytest.raises(InvalidInput, match="rolled back"):
            await plain(world, params, speculation=Speculation("lookup"))
        assert all(node.server.sessions == 0 for node in world.nodes.values())


@pytest.mark.parametrize(("by", "waste"), [("", 0.5), ("auto", -1.0), ("auto", float("nan")), ("auto", 1e9)])
def test_a_speculation_that_is_none_is_refused(by: str, waste: float) -> None:
    with pytest.raises(InvalidInput):
        Speculation(by, waste)
