"""`make demo`: three nodes that each stake and serve a third of a real model answer a question and are paid for it."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from corolla.client import AsyncClient
from corolla.devnet.devnet import Devnet, DevnetPlan
from corolla.devnet.reference import Reference
from corolla.devnet.split import split_evenly
from corolla.values import ChatMessage, Generation
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.token import Token
from corolla_core.config import home, setup_logging
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.model.smollm import prepare_smollm
from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.ids import Address
from corolla_core.protocol.units import ONE_NECTAR, Nectar, nectar_to_text

QUESTION = "Why do flowers have petals? Answer in three sentences."
_WIDTH = 88
_DEPOSIT = Nectar(ONE_NECTAR)
_LIMIT = Nectar(ONE_NECTAR // 2)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the chain says an account has: tokens, earnings in the escrow, free deposit in the escrow, stake."""

    tokens: Nectar
    earned: Nectar
    deposit: Nectar
    stake: Nectar


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: what was generated, what plain transformers says, and everyone's money before and after."""

    generation: Generation
    expected_ids: tuple[int, ...]
    before: dict[str, Holdings]
    after: dict[str, Holdings]
    fee_bps: int

    @property
    def identical(self) -> bool:
        return self.generation.token_ids == self.expected_ids

    def redeemed(self, name: str) -> Nectar:
        """What the escrow credited to an account in between."""
        return Nectar(self.after[name].earned - self.before[name].earned)

    def settled(self, names: Sequence[str]) -> bool:
        """Whether every node was promised exactly its price and got that on chain, less what the network burns."""
        return all(
            node.paid == node.cost and self.redeemed(name) == node.paid - node.paid * self.fee_bps // 10_000
            for name, node in zip(names, self.generation.usage.per_node, strict=True)
        )


async def run(question: str, *, tokens: int, nodes: int, folder: Path, out: Console) -> Outcome:
    """The whole story, on a devnet of its own in `folder`, which is gone when this returns."""
    checkpoint = prepare_smollm()
    plan = DevnetPlan(model=str(checkpoint), spans=split_evenly(open_checkpoint(str(checkpoint)).num_blocks, nodes))
    messages: list[ChatMessage] = [{"role": "user", "content": question}]
    params = SamplingParams(max_tokens=tokens)
    async with Devnet(plan, home=folder, progress=lambda what: out.print(f"· {what}", style="dim")) as devnet:
        names = {"client": devnet.client.signer.address} | {node.name: node.account for node in devnet.nodes}
        chain = await Chain.connect(devnet.network)
        try:
            async with AsyncClient(
                network=devnet.network,
                model=str(checkpoint),
                signer=devnet.client.signer,
                spending_limit=_LIMIT,
                home_dir=devnet.folder,
            ) as client:
                await client.deposit(_DEPOSIT)
                fee_bps = (await Escrow(chain).parameters()).fee_bps
                before = await _holdings(chain, names)
                out.print(f"\n[bold]{question}[/bold]\n")
                generation = await _answer(client, messages, params, out)
            out.print("\n\n· nodes drain, and redeem their vouchers", style="dim")
            await devnet.stop_nodes()
            after = await _holdings(chain, names)
        finally:
            await chain.close()
    out.print("· the same question to plain transformers, for comparison\n", style="dim")
    reference = Reference(checkpoint)
    expected = reference.generate(reference.chat_ids(messages), tokens)
    return Outcome(generation, tuple(expected), before, after, fee_bps)


async def _answer(client: AsyncClient, messages: list[ChatMessage], params: SamplingParams, out: Console) -> Generation:
    stream = client.stream(messages, params)
    column = 0
    async for piece in stream:
        text, column = wrapped(piece.text, column, width=min(out.width, _WIDTH))
        out.file.write(text)
        out.file.flush()
    return stream.generation


def wrapped(text: str, column: int, *, width: int) -> tuple[str, int]:
    """A streamed piece with its line breaks, and the column it ends in. A word starts a new line rather than cross
    the edge, as far as one can know while it is still being written."""
    words = []
    for word in re.split(r"(?=[ \n])", text):
        if word.startswith("\n") or (word.startswith(" ") and column + len(word) > width):
            column, word = 0, "\n" + word[1:]
        words.append(word)
        column += len(word.removeprefix("\n"))
    return "".join(words), column


async def _holdings(chain: Chain, names: dict[str, Address]) -> dict[str, Holdings]:
    token, escrow, registry = Token(chain), Escrow(chain), Registry(chain)
    return {
        name: Holdings(
            tokens=await token.balance_of(account),
            earned=await escrow.payee_balance(account),
            deposit=await escrow.free_balance(account),
            stake=(await registry.node(account)).stake,
        )
        for name, account in names.items()
    }


def report(outcome: Outcome, names: Sequence[str], out: Console) -> None:
    """The closing tables."""
    generation, usage = outcome.generation, outcome.generation.usage
    nodes = Table(title="Route, and what each node earned (NECT)", title_justify="left")
    for column in ("hop", "node", "blocks", "tokens", "cost", "vouchers", "redeemed"):
        nodes.add_column(column, justify="left" if column in ("node", "blocks") else "right")
    for hop, (name, node) in enumerate(zip(names, usage.per_node, strict=True)):
        row = (str(hop), name, str(node.span), str(node.tokens))
        nodes.add_row(*row, *map(nectar_to_text, (node.cost, node.paid, outcome.redeemed(name))))
    nodes.caption = f"redeemed: the last voucher, less the {outcome.fee_bps / 100:g} % that the network burns"
    nodes.caption_justify = "left"
    out.print(nodes, "")
    money = Table(title="Balances on chain (NECT), before → after redemption", title_justify="left")
    for column in ("account", "tokens", "deposit", "earned", "stake"):
        money.add_column(column, justify="left" if column == "account" else "right")
    for name, before in outcome.before.items():
        after = outcome.after[name]
        money.add_row(
            name,
            _change(before.tokens, after.tokens),
            _change(before.deposit, after.deposit),
            _change(before.earned, after.earned),
            _change(before.stake, after.stake),
        )
    out.print(money, "")
    out.print(
        f"{usage.prompt_tokens} prompt tokens, {usage.tokens} generated; first token after "
        f"{usage.first_token_seconds:.2f} s, then {usage.tokens_per_second:.1f} tok/s; "
        f"{nectar_to_text(usage.cost)} NECT in all"
    )
    count = len(generation.token_ids)
    _verdict(outcome.identical, f"the same {count} tokens as plain transformers, decoding greedily", out)
    _verdict(outcome.settled(names), "every node was paid its price on chain, and no more", out)


def _verdict(holds: bool, claim: str, out: Console) -> None:
    out.print(f"✓ {claim}" if holds else f"✗ NOT {claim}", style="green" if holds else "bold red")


def _change(before: int, after: int) -> str:
    was = nectar_to_text(before)
    return was if before == after else f"{was} → {nectar_to_text(after)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m corolla.demo", description=__doc__)
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--tokens", type=int, default=60, help="at most so many")
    parser.add_argument("--nodes", type=int, default=3)
    args = parser.parse_args()
    out = Console(highlight=False)
    setup_logging("warning")
    disable_progress_bar()
    try:
        outcome = asyncio.run(run(args.question, tokens=args.tokens, nodes=args.nodes, folder=home() / "demo", out=out))
    except CorollaError as error:
        Console(stderr=True).print(f"demo failed: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    names = [f"node-{i}" for i in range(args.nodes)]
    report(outcome, names, out)
    return 0 if outcome.identical and outcome.settled(names) else 1


if __name__ == "__main__":
    sys.exit(main())
