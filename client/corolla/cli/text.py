"""`corolla generate` and `corolla chat`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer
import uvloop
from rich.table import Table

from corolla.cli.context import (
    AccountOption,
    JsonOption,
    LimitOption,
    MaxPriceOption,
    ModelOption,
    NetworkOption,
    PasswordOption,
    connected,
    settings_of,
)
from corolla.config import ClientSettings
from corolla_core.config.terminal import emit, errors, notes
from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.units import nectar_to_text

if TYPE_CHECKING:
    from corolla.values import ChatMessage, Generation, Piece
    from corolla_core.model.sampling import SamplingParams

MaxTokens = Annotated[int | None, typer.Option("--max-tokens", "-n", help="At most so many new tokens.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.")]
TopP = Annotated[float | None, typer.Option("--top-p", help="Choose among the likeliest of this total chance.")]
TopK = Annotated[int | None, typer.Option("--top-k", help="Choose among so many; 0 is off.")]
Penalty = Annotated[float | None, typer.Option("--repetition-penalty", help="Above 1 discourages repeating.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text.")]
Speculate = Annotated[
    str | None,
    typer.Option(
        help="Guess tokens ahead and send several at once; the text is the same. "
        "auto, off, lookup (what followed the same words before), or the checkpoint of a small draft model."
    ),
]
MaxWaste = Annotated[
    float | None, typer.Option("--max-waste", help="Pay for at most so many wrong guesses a token generated.")
]
LocalBlocks = Annotated[
    str | None,
    typer.Option(
        "--local-blocks",
        help="Compute so many of the first and last blocks here and show them to no node: 2,1, or 2 for 2,2.",
    ),
]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")]


class _Pieces(Protocol):
    @property
    def generation(self) -> Generation: ...

    def __aiter__(self) -> AsyncIterator[Piece]: ...


def generate(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from stdin.")],
    network: NetworkOption = None,
    model: ModelOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    spending_limit: LimitOption = None,
    max_price: MaxPriceOption = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    speculate: Speculate = None,
    max_waste: MaxWaste = None,
    local_blocks: LocalBlocks = None,
    stop: Stop = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Every line is a prompt of its own; prints one JSON object for each.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it is, without the chat template.")] = False,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Print text as it comes.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Answer a prompt, or continue a text."""
    with errors():
        settings = settings_of(
            network=network, model=model, account=account, password_file=password_file, spending_limit=spending_limit,
            max_price=max_price, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k,
            repetition_penalty=repetition_penalty, speculate=speculate, max_waste=max_waste,
            local_blocks=local_blocks,
        ).settings  # fmt: skip
        text = sys.stdin.read() if prompt == "-" else prompt
        if lines:
            prompts = [line for line in text.splitlines() if line.strip()]
            uvloop.run(_generate_lines(settings, prompts, _params(settings, seed, stop), raw=raw))
            return
        uvloop.run(_generate(settings, text, _params(settings, seed, stop), raw=raw, stream=stream, as_json=as_json))


async def _generate(
    settings: ClientSettings, text: str, params: SamplingParams, *, raw: bool, stream: bool, as_json: bool
) -> None:
    async with connected(settings, with_model=True) as client:
        pieces = client.stream(_asked(text, raw=raw), params)
        async with pieces:
            made = await _print_pieces(pieces, shown=stream and not as_json)
    if as_json:
        emit(as_record(made), as_json=True)
        return
    if not stream:
        sys.stdout.write(made.text + "\n")
        sys.stdout.flush()
    show_usage(made)


async def _generate_lines(settings: ClientSettings, prompts: list[str], params: SamplingParams, *, raw: bool) -> None:
    async with connected(settings, with_model=True) as client:
        show_many(await client.generate_many([_asked(prompt, raw=raw) for prompt in prompts], params))


def show_many(made: Sequence[Generation | CorollaError]) -> None:
    """A JSON object for each on a line of its own; exit status 1 where any is an error."""
    for each in made:
        if isinstance(each, CorollaError):
            emit({"error": {"code": each.code, "message": str(each)}}, as_json=True)
        else:
            emit(as_record(each), as_json=True)
    if any(isinstance(each, CorollaError) for each in made):
        raise typer.Exit(1)


def _asked(text: str, *, raw: bool) -> str | list[ChatMessage]:
    return text if raw else [{"role": "user", "content": text}]


def chat(
    network: NetworkOption = None,
    model: ModelOption = None,
    account: AccountOption = None,
    password_file: PasswordOption = None,
    spending_limit: LimitOption = None,
    max_price: MaxPriceOption = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    speculate: Speculate = None,
    max_waste: MaxWaste = None,
    local_blocks: LocalBlocks = None,
    system: Annotated[str | None, typer.Option(help="What the model is told about itself first.")] = None,
) -> None:
    """Talk with a model. Each line is a turn; an empty line or end of input ends the talk."""
    with errors():
        settings = settings_of(
            network=network, model=model, account=account, password_file=password_file, spending_limit=spending_limit,
            max_price=max_price, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k,
            repetition_penalty=repetition_penalty, speculate=speculate, max_waste=max_waste,
            local_blocks=local_blocks,
        ).settings  # fmt: skip
        uvloop.run(_chat(settings, _params(settings, seed, None), system))


async def _chat(settings: ClientSettings, params: SamplingParams, system: str | None) -> None:
    screen = notes()
    made: Generation | None = None
    async with connected(settings, with_model=True) as client, client.session(system=system) as talk:
        while line := (await asyncio.to_thread(_read_line)).strip():
            try:
                async with talk.stream(line, params) as pieces:
                    made = await _print_pieces(pieces, shown=True)
            except CorollaError as error:
                screen.print(f"{error.code}: {error}", style="red", markup=False)
        if made is not None:
            show_usage(made)


def _read_line() -> str:
    if sys.stdin.isatty():
        sys.stderr.write("> ")
        sys.stderr.flush()
    return sys.stdin.readline()


async def _print_pieces(pieces: _Pieces, *, shown: bool) -> Generation:
    async for piece in pieces:
        if shown and piece.text:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
    if shown:
        sys.stdout.write("\n")
        sys.stdout.flush()
    return pieces.generation


def _params(settings: ClientSettings, seed: int | None, stop: list[str] | None) -> SamplingParams:
    from corolla_core.model.sampling import SamplingParams

    return SamplingParams(
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        repetition_penalty=settings.repetition_penalty,
        seed=seed,
        stop=tuple(stop or ()),
    )


def as_record(made: Generation) -> dict[str, Any]:
    """A generation for programs; amounts in base units, as text."""
    usage = made.usage
    return {
        "text": made.text,
        "token_ids": list(made.token_ids),
        "finish_reason": made.finish_reason,
        "route": [{"account": hop.account, "blocks": str(hop.span)} for hop in made.route],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "tokens": usage.tokens,
            "seconds": usage.seconds,
            "first_token_seconds": usage.first_token_seconds,
            "tokens_per_second": usage.tokens_per_second,
            "cost": str(usage.cost),
            "failovers": usage.failovers,
            "drafted": usage.drafted,
            "accepted": usage.accepted,
            "per_node": [
                {
                    "account": node.account,
                    "blocks": str(node.span),
                    "tokens": node.tokens,
                    "cost": str(node.cost),
                    "paid": str(node.paid),
                    "alive": node.alive,
                }
                for node in usage.per_node
            ],
        },
    }


def show_usage(made: Generation) -> None:
    """The closing table, on stderr: route, tokens, speed, what each node earned."""
    usage, screen = made.usage, notes()
    table = Table(title="Route, and what each node earned", title_justify="left")
    for column in ("blocks", "node", "tokens", "cost", "paid"):
        table.add_column(column, justify="left" if column in ("blocks", "node") else "right")
    for node in usage.per_node:
        name = node.account if node.alive else f"{node.account} (lost)"
        table.add_row(str(node.span), name, str(node.tokens), nectar_to_text(node.cost), nectar_to_text(node.paid))
    screen.print(table)
    screen.print(
        f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} held already), {usage.tokens} generated; "
        f"first after {usage.first_token_seconds:.2f} s, then {usage.tokens_per_second:.1f} tok/s; "
        f"cost {nectar_to_text(usage.cost)} NECT"
        + (f"; {usage.accepted} of {usage.drafted} guesses right" if usage.drafted else "")
        + (f"; {usage.failovers} failovers" if usage.failovers else "")
    )
