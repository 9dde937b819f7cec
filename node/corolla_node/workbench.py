"""One session's computing: its cache, its kept rows, and the messages its outputs become.

A workbench is used by one job at a time: the compute thread during a job, the event loop between jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

import torch

from corolla_core.model.tensors import from_wire, onto_wire, to_wire, wire_dtype
from corolla_core.protocol.errors import CorollaError, PositionMismatch
from corolla_core.protocol.ids import Address
from corolla_core.swarm.messages import Result, Step, Tensor
from corolla_node.kept_rows import KeptRows, kept_bytes
from corolla_node.ports import Blocks, Cache
from corolla_node.prefixes import BLOCK, Block, Prefixes, Trail
from corolla_node.scheduler import Pending, StepJob
from corolla_node.steps import REPLAY, Agreement, tokens_of
from corolla_node.timings import StepTiming

REPLAY_TOKENS = 128
REPLAY_BYTES = 16 * 1024 * 1024
"""How many positions, and bytes, of kept rows go into one replayed Step at most."""


class SessionBroken(Exception):
    """The span failed in mid-step: the session's cache can no longer be trusted."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message ready to be sent. `payload` is None where it carries no tensor."""

    message: Step | Result
    payload: memoryview | None


@dataclass(frozen=True, slots=True)
class Computed:
    """What a step gave: what to send (None: nothing), all of its output rows as wire bytes, and its clock readings."""

    outgoing: Outgoing | None
    rows: memoryview
    started: float
    decoded: float
    computed: float
    encoded: float
    pass_rows: int
    """positions computed in the pass, these among them"""

    def timing(self, tokens: int, received: float, paying: float, back: float, sent: float) -> StepTiming:
        """Where the time of a step of so many positions went; `back` on the event loop, and `sent` on, by
        `perf_counter`."""
        return StepTiming(
            tokens=tokens,
            received=received,
            decode=self.decoded - self.started,
            queue=self.started - received - paying,
            compute=self.computed - self.decoded,
            encode=self.encoded - self.computed,
            deliver=back - self.encoded,
            send=sent - back,
            pay=paying,
            pass_rows=self.pass_rows,
        )


class Workbench:
    def __init__(self, blocks: Blocks, agreed: Agreement, *, prefixes: Prefixes, payer: Address) -> None:
        self._blocks = blocks
        self._agreed = agreed
        self._dtype = wire_dtype(agreed.wire_dtype)
        self._cache: Cache | None = None
        self._rows: KeptRows | None = None
        self._prefixes = prefixes
        # Never across clients: how soon an answer comes would tell one what another asked.
        self._scope = f"{payer} {agreed.client} {agreed.span} {agreed.wire_dtype}".encode()
        self._trail: Trail | None = None

    @property
    def length(self) -> int:
        """Positions computed."""
        return self._rows.length if self._rows is not None else 0

    def job(
        self, step: Step, payload: memoryview, *, last: bool, done: Callable[[Pending[Computed]], None]
    ) -> StepJob[Computed]:
        """A step to be run over its tensor; `last` when the output goes to the client.

        Fails with TensorRejected, the session being as it was, or SessionBroken.
        """
        stepping = Stepping(self, step, payload, last=last)
        return StepJob(
            self._blocks,
            session=self._agreed.session,
            rows=self._agreed.batch * tokens_of(step),
            price=self._agreed.price.per_token_block,
            begin=stepping.begin,
            finish=stepping.finish,
            done=done,
        )

    def unpack(self, step: Step, payload: memoryview) -> torch.Tensor:
        """The step's hidden states. Raises TensorRejected."""
        agreed = self._agreed
        shape = (agreed.batch, tokens_of(step), agreed.hidden)
        return from_wire(step.tensor.dtype, step.tensor.shape, payload, expect_shape=shape, max_bytes=payload.nbytes)

    def ready_cache(self, step: Step) -> Cache:
        """The cache as this step continues it, made for the first one."""
        agreed = self._agreed
        if self._cache is None or self._rows is None:
            self._cache = self._blocks.new_cache(agreed.batch, agreed.max_tokens)
            self._rows = KeptRows(agreed.batch, agreed.max_tokens, agreed.width, self._dtype)
            self._trail = Trail(self._scope) if agreed.batch == 1 and self._blocks.batches else None
        if step.pos < self._rows.length:
            self._cache.crop(step.pos)
            self._rows.crop(step.pos)
            if self._trail is not None:
                self._trail.crop(step.pos)
        if step.reorder is not None:
            self._cache.reorder(step.reorder)
            self._rows.reorder(step.reorder)
        return self._cache

    def reuse(self, step: Step, payload: memoryview) -> list[Block]:
        """What an earlier session computed of this step, from its first position on; the cache holds it now."""
        if self._trail is None:
            return []
        assert self._cache is not None
        known = len(self._trail.names)
        self._trail.extend(payload, tokens_of(step))
        if step.pos % BLOCK or tokens_of(step) < BLOCK:
            return []
        found = self._prefixes.find(self._trail.names, known)
        for block in found:
            self._cache.append(block.part)
        return found

    def keep(self, reused: list[Block], output_BTD: torch.Tensor | None) -> torch.Tensor:
        """Keep the rows a step gave, reused and computed; returns them as they travel."""
        assert self._rows is not None
        rows = [block.rows for block in reused]
        if output_BTD is not None:
            rows.append(onto_wire(output_BTD, self._agreed.wire_dtype))
        rows_BTW = torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]
        first = self._rows.length // BLOCK
        self._rows.append(rows_BTW)
        self._share(first)
        return rows_BTW

    def _share(self, first: int) -> None:
        """Let later sessions have the blocks from this one on."""
        if self._trail is None or first == len(self._trail.names):
            return
        assert self._cache is not None
        assert self._rows is not None
        names = self._trail.names
        size = self._blocks.kv_bytes(1, BLOCK) + kept_bytes(1, BLOCK, self._agreed.width, self._dtype)
        for index in range(first, len(names)):
            if self._prefixes.wants(names[index], size):
                start, stop = index * BLOCK, (index + 1) * BLOCK
                block = Block(self._cache.part(start, stop), self._rows.read(start, stop))
                self._prefixes.keep(names[: index + 1], block, size)

    def answer(self, step: Step, *, last: bool) -> Outgoing | None:
        """The output of a step done before, from kept rows."""
        assert self._rows is not None
        return output_message(step, self._rows.read(step.pos, step.pos + tokens_of(step)), last=last)

    def replay(self, upto: int, *, last: bool) -> list[Outgoing]:
        """The kept rows `[0, upto)` as replay steps for a node that is new in the route, or as Results."""
        return list(self._replay(upto, last=last))

    def _replay(self, upto: int, *, last: bool) -> Iterator[Outgoing]:
        position_bytes = self._agreed.batch * self._agreed.width * self._dtype.itemsize
        stride = max(1, min(REPLAY_TOKENS, REPLAY_BYTES // position_bytes))
        for start in range(0, upto, stride):
            assert self._rows is not None
            stop = min(start + stride, upto)
            tensor, payload = _on_wire(self._rows.replay(start, stop, upto=upto))
            session = self._agreed.session
            if last:
                yield Outgoing(Result(session, REPLAY, start, tensor), payload)
            else:
                # `crop` lets a replay start over on a node that got part of an earlier one.
                yield Outgoing(Step(session, REPLAY, start, tensor, keep=0, forward_from=upto, crop=True), payload)


class Stepping:
    """One step on a session's workbench: `begin`, a forward pass that others may share, `finish`."""

    def __init__(self, bench: Workbench, step: Step, payload: memoryview, *, last: bool) -> None:
        self._bench = bench
        self._step = step
        self._payload = payload
        self._last = last
        self._started = self._decoded = 0.0
        self._reused: list[Block] = []

    def begin(self) -> tuple[torch.Tensor, Cache] | None:
        """What goes into the pass, None where an earlier session computed it all.

        Raises TensorRejected or (where the cache cannot be rolled back) PositionMismatch, the session being as it was,
        or SessionBroken.
        """
        self._started = perf_counter()
        hidden_BTD = self._bench.unpack(self._step, self._payload)
        self._decoded = perf_counter()
        try:
            cache = self._bench.ready_cache(self._step)
            self._reused = self._bench.reuse(self._step, self._payload)
        except PositionMismatch:
            raise
        except Exception as error:
            raise _broken(error) from error
        left_BTD = hidden_BTD[:, BLOCK * len(self._reused) :]
        return (left_BTD, cache) if left_BTD.shape[1] else None

    def finish(self, output: torch.Tensor | Exception | None, pass_rows: int) -> Computed:
        """What came out of a pass of `pass_rows` positions. Raises SessionBroken."""
        computed = perf_counter()
        if isinstance(output, Exception):
            raise _broken(output) from output
        rows_BTD = self._bench.keep(self._reused, output)
        outgoing = output_message(self._step, rows_BTD, last=self._last)
        sent = outgoing.payload if outgoing is not None else None
        whole = sent if sent is not None and sent.nbytes == rows_BTD.nbytes else to_wire(rows_BTD)[2]
        return Computed(outgoing, whole, self._started, self._decoded, computed, perf_counter(), pass_rows)


def _broken(error: Exception) -> SessionBroken:
    return SessionBroken(str(error) if isinstance(error, CorollaError) else type(error).__name__)


def output_message(step: Step, rows_BTD: torch.Tensor, *, last: bool) -> Outgoing | None:
    """What a step's output becomes: the next node's Step, or the client's Result; None below `forward_from`."""
    end = step.pos + rows_BTD.shape[1]
    start = max(step.pos, step.forward_from)
    if start >= end:
        return None
    if not last:
        tensor, payload = _on_wire(rows_BTD, start - step.pos)
        message = Step(
            step.session,
            step.step,
            start,
            tensor,
            min(step.keep, end - start),
            step.forward_from,
            step.crop,
            step.reorder,
        )
        return Outgoing(message, payload)
    if step.keep == 0:
        return Outgoing(Result(step.session, step.step, start, None), None)
    kept = max(start, end - step.keep)
    tensor, payload = _on_wire(rows_BTD, kept - step.pos)
    return Outgoing(Result(step.session, step.step, kept, tensor), payload)


def _on_wire(rows_BTD: torch.Tensor, first: int = 0) -> tuple[Tensor, memoryview]:
    dtype, shape, payload = to_wire(rows_BTD[:, first:] if first else rows_BTD)
    return Tensor(dtype, list(shape)), payload
