"""What the end-to-end tests do to a devnet, and how they look behind everyone's own books: on the chain."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bare_client import BareClient

from corolla.client import AsyncClient
from corolla.devnet.devnet import Devnet, Funded
from corolla.devnet.node import DevnetNode, installed
from corolla.devnet.reference import Reference
from corolla.policy import Policy
from corolla.speculation import Speculation
from corolla.values import ChatMessage, Generation
from corolla_core.chain.escrow import Escrow
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.ids import Address, TrancheId, address_bytes
from corolla_core.protocol.units import ONE_NECTAR, Nectar
from corolla_core.protocol.voucher import tranche_id
from corolla_core.store.client_store import ClientStore
from corolla_core.store.node_store import NodeStore
from corolla_core.store.store import Store
from corolla_core.swarm import messages

_numbers = itertools.count()
DEPOSIT = ONE_NECTAR


def question(text: str) -> list[ChatMessage]:
    return [{"role": "user", "content": text}]


@dataclass(frozen=True, slots=True)
class Expected:
    """What plain transformers says to a prompt."""

    prompt_tokens: int
    token_ids: tuple[int, ...]


def expect(reference: Reference, prompt: list[ChatMessage], tokens: int) -> Expected:
    ids = reference.chat_ids(prompt)
    return Expected(len(ids), tuple(reference.generate(ids, tokens)))


def greedy(tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens)


@dataclass(frozen=True, slots=True)
class Buyer:
    """A client with money, and what it takes to audit it afterwards."""

    devnet: Devnet
    account: Funded
    client: AsyncClient
    books: Path

    async def tranches(self, escrow: Escrow) -> list[TrancheId]:
        """Every tranche it ever opened, by the chain's own count."""
        network, payer = self.devnet.network, self.account.signer.address
        count = await escrow.tranche_nonce(payer)
        return [tranche_id(network.chain_id, network.escrow, payer, nonce) for nonce in range(count)]

    async def claimed(self, escrow: Escrow) -> dict[Address, int]:
        """What each node got out of its tranches on chain."""
        found = {}
        for node in self.devnet.all_nodes:
            amounts = [await escrow.claimed(each, node.account) for each in await self.tranches(escrow)]
            found[node.account] = sum(amounts)
        return found

    async def signed(self) -> dict[Address, int]:
        """What it has promised to each payee, by its books on disk."""
        store = await asyncio.to_thread(Store.open, self.books)
        try:
            book = ClientStore(store)
            total: dict[Address, int] = {}
            for tranche in await store.run(book.tranches):
                for payee, amount in (await store.run(book.signed_totals, tranche.tranche_id)).items():
                    total[payee] = total.get(payee, 0) + amount
            return total
        finally:
            await store.aclose()


@asynccontextmanager
async def buyer(
    devnet: Devnet, *, limit: Nectar | None = None, deposit: Nectar = DEPOSIT, policy: Policy | None = None
) -> AsyncIterator[Buyer]:
    """A new account with a deposit and a connected client, which guesses no tokens: bills are known to the unit."""
    name = f"buyer-{next(_numbers)}"
    account = await devnet.new_account(name)
    books = devnet.folder / f"{name}.db"
    async with AsyncClient(
        network=devnet.network,
        model=devnet.plan.model,
        signer=account.signer,
        spending_limit=limit,
        store=books,
        home_dir=devnet.folder / name,
        policy=policy,
        speculation=Speculation("off"),
    ) as client:
        await client.deposit(deposit)
        yield Buyer(devnet, account, client, books)


async def inspect(node: DevnetNode, devnet: Devnet) -> messages.Info:
    """What a node answers to anyone who asks how it is."""
    ready = node.ready
    where = messages.Endpoint(
        address_bytes(node.account), ready["host"], ready["port"], bytes.fromhex(ready["cert_hash"]), ready["peer_id"]
    )
    wire = await BareClient.connect(where, devnet.client.signer)
    try:
        return await wire.info()
    finally:
        await wire.close()


async def serving(devnet: Devnet, third: int) -> DevnetNode:
    """Which of the two nodes with these blocks has the one session that runs now."""
    pair = (devnet.nodes[third], devnet.standbys[third])
    sessions = [(await inspect(node, devnet)).sessions for node in pair]
    assert sorted(sessions) == [0, 1], f"expected one session, the nodes have {sessions}"
    return pair[sessions.index(1)]


async def books_of(node: DevnetNode, tranche: TrancheId) -> tuple[int, int]:
    """What a node has charged to a tranche and the voucher it holds for it, by its books on disk."""
    store = await asyncio.to_thread(Store.open, node.home / "node" / "books.db")
    try:
        book = NodeStore(store)
        charged = await store.run(book.charged, tranche, node.account)
        best = await store.run(book.best_voucher, tranche, node.account)
        return charged, best.signed.voucher.cumulative if best else 0
    finally:
        await store.aclose()


async def eventually(holds: Callable[[], Awaitable[bool]], *, within: float, what: str) -> None:
    """Fails, saying what never came true."""
    deadline = time.monotonic() + within
    while not await holds():
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        await asyncio.sleep(0.2)


def positions(answer: Generation) -> int:
    """How many positions an answer took: the last token it was cut off after never goes through the nodes."""
    return answer.usage.prompt_tokens + len(answer.token_ids) - (answer.finish_reason != "eos")


async def node_command(node: DevnetNode, devnet: Devnet, *words: str) -> dict[str, Any]:
    """`corolla-node <words> --json` as the node's operator would run it. Raises CommandRefused."""
    process = await asyncio.create_subprocess_exec(
        installed("corolla-node"),
        *words,
        "--json",
        env={**node.environ, "COROLLA_NODE_PASSWORD_FILE": str(devnet.password_file)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode:
        raise CommandRefused(err.decode())
    answer: dict[str, Any] = json.loads(out)
    return answer


class CommandRefused(Exception):
    """A command ended with an error; the text is its stderr."""
