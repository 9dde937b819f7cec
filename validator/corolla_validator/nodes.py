"""Nodes, asked over connections of the validator's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic

from corolla_core.protocol.errors import NetworkError
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.opening import Side
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.transcript import Entry
from corolla_core.swarm.announcement import Announcement
from corolla_core.swarm.dial import Fallback
from corolla_core.swarm.inquiry import Inquiry
from corolla_core.swarm.messages import Ask, AskNamed, AskPossession, AskReceipts, Info, Possession, Receipts
from corolla_core.swarm.openings import ask_opening

_ANSWER_SECONDS = 20.0


class SwarmNodes:
    """Keeps one connection to each node it has asked, as long as that announces the same certificate."""

    def __init__(self, identity: Signer, *, fallback: Fallback | None = None) -> None:
        self._identity = identity
        self._fallback = fallback
        self._lines: dict[Address, tuple[bytes, Inquiry]] = {}
        self._dialing: dict[Address, asyncio.Lock] = {}

    async def receipts(self, node: Announcement, t_out: int, after: Hash32) -> tuple[list[SignedReceipt], bool]:
        return await self._receipts(node, AskReceipts(t_out, after))

    async def named(self, node: Announcement, hashes: Sequence[Hash32]) -> list[SignedReceipt]:
        found, _more = await self._receipts(node, AskNamed(list(hashes)))
        return found

    async def open(self, node: Announcement, signed: SignedReceipt) -> Entry:
        line = await self._line(node)
        found = await ask_opening(line, signed.receipt, seconds=_ANSWER_SECONDS)
        return Entry(signed, bytes(found.rows[Side.INPUTS]), bytes(found.rows[Side.OUTPUTS]), found.reorderings)

    async def info(self, node: Announcement, *, seconds: float) -> Info:
        """How it is. Raises NetworkError, what it refuses with, and TimeoutError after so many seconds in all."""
        async with asyncio.timeout(seconds):
            line = await self._line(node)
            answer, _payload = await line.ask(Ask(), Info, seconds=seconds)
        return answer

    async def possession(
        self, node: Announcement, question: AskPossession, *, seconds: float
    ) -> tuple[Possession, float] | None:
        """See `corolla_validator.possession.Asked`. Over a connection of its own: what else this validator and the node
        have to tell each other takes no time of the answer's."""
        try:
            line = await Inquiry.open(node.endpoint(), identity=self._identity, fallback=self._fallback)
        except NetworkError:
            return None
        async with line:
            began = monotonic()
            answer, _payload = await line.ask(question, Possession, seconds=seconds)
            return answer, monotonic() - began

    async def close(self) -> None:
        await asyncio.gather(*(line.close() for _certificate, line in self._lines.values()), return_exceptions=True)
        self._lines.clear()

    async def _receipts(self, node: Announcement, question: AskReceipts | AskNamed) -> tuple[list[SignedReceipt], bool]:
        line = await self._line(node)
        answer, _payload = await line.ask(question, Receipts, seconds=_ANSWER_SECONDS)
        return answer.receipts, answer.more

    async def _line(self, node: Announcement) -> Inquiry:
        async with self._dialing.setdefault(node.account, asyncio.Lock()):
            known = self._lines.get(node.account)
            if known is not None and known[0] == node.cert_hash and not known[1].closed:
                return known[1]
            if known is not None:
                await known[1].close()
            line = await Inquiry.open(node.endpoint(), identity=self._identity, fallback=self._fallback)
            self._lines[node.account] = (node.cert_hash, line)
            return line
