"""What generates: a model's ends here, its blocks out there, and the money to pay for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from corolla.beams import Beam, BeamTape, check_beams, search
from corolla.chat import ChatSession
from corolla.draft_model import DraftModel
from corolla.drafter import Drafter, PromptLookup
from corolla.generation import MakeSpeculator, Tape, TextModel, TextStream
from corolla.links import Links
from corolla.pace import Pace
from corolla.peers import Peers
from corolla.policy import Policy, Shape
from corolla.session import Session
from corolla.speculation import AUTO, LOOKUP, OFF, Speculation, Speculator
from corolla.values import ChatMessage, Prompt
from corolla.wallet import Wallet
from corolla_core.config.tracing import Tracing
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import ContextExceeded, InvalidInput
from corolla_core.protocol.ids import Hash32
from corolla_core.protocol.opening import check_row_size
from corolla_core.protocol.receipt import SignedReceipt, WireDtype
from corolla_core.protocol.span import Span
from corolla_core.swarm.frame import DTYPE_BYTES

KeepReceipts = Callable[[Sequence[SignedReceipt]], Awaitable[None]]

LoadDraft = Callable[[str], DraftModel]
"""Reads the checkpoint of a draft model; blocks for seconds."""

DEFAULT_CHAT_TOKENS = 1024
_MEET = 32


class Engine:
    """Opens sessions as texts and conversations need them, and closes every one of them."""

    def __init__(
        self,
        *,
        model: TextModel,
        hidden_size: int,
        context: int | None,
        chain_id: int,
        peers: Peers,
        links: Links,
        wallet: Wallet,
        keep_receipts: KeepReceipts,
        weight_root: Callable[[Span], Hash32] | None = None,
        policy: Policy | None = None,
        load_draft: LoadDraft | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._model = model
        self._hidden_size = hidden_size
        self._context = context
        self._chain_id = chain_id
        self._peers = peers
        self._links = links
        self._wallet = wallet
        self._keep_receipts = keep_receipts
        self._weight_root = weight_root
        self._policy = policy or Policy()
        self._load_draft = load_draft
        self._tracing = tracing
        self._drafts: dict[str, asyncio.Task[DraftModel]] = {}
        self._sessions: set[Session] = set()

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams,
        *,
        logprobs: bool = False,
        top_logprobs: int = 0,
        speculation: Speculation | None = None,
    ) -> TextStream:
        """A text of its own, in a session of its own. Nothing is guessed without `speculation`."""
        return TextStream(
            self._model,
            prompt,
            params,
            tape=Tape(self._model),
            open_session=self._open_for,
            close_session=self._close_after,
            make_speculator=self._speculators(speculation),
            logprobs=logprobs,
            top_logprobs=top_logprobs,
        )

    def chat(
        self,
        *,
        system: str | None = None,
        capacity: int = DEFAULT_CHAT_TOKENS,
        speculation: Speculation | None = None,
    ) -> ChatSession:
        """A conversation that keeps its session from turn to turn."""
        return ChatSession(
            self._model,
            make=self.open_session,
            finish=self.finish,
            make_speculator=self._speculators(speculation),
            capacity=min(capacity, self._context or capacity),
            largest=self._context,
            system=system,
        )

    async def beams(
        self, prompt: str | Sequence[ChatMessage], params: SamplingParams, *, num_beams: int
    ) -> tuple[list[Beam], Session]:
        """Beam search: candidates, best first, and the session that made them, closed."""
        check_beams(params, num_beams)
        ids: list[int] = await self._model.run(self._model.prompt_ids, prompt)
        tape = BeamTape(self._model, [list(ids) for _ in range(num_beams)])
        session = await self.open_session(tape, self._fitting(len(ids) + params.max_tokens), num_beams)
        try:
            return await search(self._model, session, tape, params, ids), session
        finally:
            await self.finish(session)

    async def open_session(self, tape: Tape | BeamTape, max_tokens: int, batch: int = 1) -> Session:
        """A session of `max_tokens` positions. Raises NoRoute, PaymentError, ChainError, StoreError, and RowTooLarge
        for more sequences than any node may take at once."""
        wire = WireDtype(self._policy.wire_dtype)
        check_row_size(batch * wire.width(self._hidden_size) * DTYPE_BYTES[wire])
        trace = None
        if self._tracing is not None:
            trace = self._tracing.begin("corolla.session", batch=batch, max_tokens=max_tokens)
        session = Session(
            shape=Shape(batch, max_tokens, self._hidden_size),
            chain_id=self._chain_id,
            peers=self._peers,
            links=self._links,
            wallet=self._wallet,
            inputs=tape.inputs,
            weight_root=self._weight_root,
            policy=self._policy,
            trace=trace,
        )
        tape.begin(max_tokens)
        self._sessions.add(session)
        opening = trace and trace.begin("corolla.open")
        try:
            await session.open()
        except BaseException as error:
            self._sessions.discard(session)
            for each in (opening, trace):
                if each is not None:
                    each.end(error)
            raise
        if opening is not None:
            opening.end()
        return session

    async def meet(self) -> None:
        """Connect to nodes drawn by stake, as far as they answer in time, so that a route may be chosen among them: one
        whose distance nobody has measured counts as far."""
        await self._peers.refresh()
        drawn = {each.account: each for _ in range(_MEET) if (each := self._peers.by_lot()) is not None}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._policy.connect):
                await asyncio.gather(*map(self._links.connect, drawn.values()), return_exceptions=True)

    async def finish(self, session: Session) -> None:
        """Settle and close a session, and keep its receipts."""
        self._sessions.discard(session)
        try:
            await session.close()
        finally:
            if session.trace is not None:
                session.trace.end(session=session.id.hex(), failovers=session.failovers)
            await self._keep_receipts(session.take_receipts())

    async def close(self) -> None:
        """Close what is still open."""
        await asyncio.gather(*(self.finish(session) for session in list(self._sessions)), return_exceptions=True)

    async def _open_for(self, tape: Tape, prompt: Sequence[int], params: SamplingParams) -> tuple[Session, int]:
        return await self.open_session(tape, self._fitting(len(prompt) + params.max_tokens)), 0

    def _fitting(self, positions: int) -> int:
        if self._context is not None and positions > self._context:
            raise ContextExceeded("more than the model's context", limit=self._context, needed=positions)
        return positions

    def _speculators(self, how: Speculation | None) -> MakeSpeculator:
        async def make(prompt: Sequence[int], params: SamplingParams) -> Speculator | None:
            if how is None or how.by == OFF or (how.by == AUTO and not self._model.rolls_back):
                return None
            if not self._model.rolls_back:
                raise InvalidInput("this model keeps a state that cannot be rolled back: no speculation")
            drafter: Drafter
            if how.by in (AUTO, LOOKUP):
                drafter = PromptLookup()
            else:
                drafter = (await self._draft(how.by)).drafter(len(prompt) + params.max_tokens)
            return Speculator(drafter, Pace(waste=how.waste))

        return make

    async def _draft(self, ref: str) -> DraftModel:
        """A draft model, read once."""
        if self._load_draft is None:
            raise InvalidInput("there are no draft models here")
        reading = self._drafts.get(ref)
        if reading is None or (reading.done() and reading.exception() is not None):
            reading = self._drafts[ref] = asyncio.create_task(asyncio.to_thread(self._load_draft, ref))
        return await asyncio.shield(reading)

    async def _close_after(self, session: Session, reusable: bool) -> None:
        await self.finish(session)
