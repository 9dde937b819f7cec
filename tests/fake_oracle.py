"""A ReputationOracle in memory, with its rules, its clock, and an endpoint that loses calls and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from corolla_core.chain.reputation import (
    EpochNow,
    NodeScore,
    OracleParameters,
    Phase,
    Ratings,
    ScoreSheet,
    Seat,
)
from corolla_core.protocol.errors import RpcRefused, TransactionReverted
from corolla_core.protocol.ids import Address, Hash32
from corolla_core.protocol.units import Nectar, UnixTime

RULES = OracleParameters(60, 40, 6_553, 1, Nectar(100), Nectar(100))


@dataclass
class FakeOracle:
    """`before()` runs before each call and `after()` before its answer; either may raise what an endpoint does."""

    me: Address
    time: float = 0.0
    held: Seat = field(default_factory=lambda: Seat(0, Hash32(bytes(32)), False))
    rated: dict[tuple[int, Address], int] = field(default_factory=dict)
    settled: dict[Address, NodeScore] = field(default_factory=dict)
    commits: list[tuple[int, int, Hash32]] = field(default_factory=list)
    """(epoch meant, epoch taken in or 0, commitment), as sent"""
    reveals: list[tuple[int, ScoreSheet, bool]] = field(default_factory=list)
    """(epoch it was sent in, what was revealed, whether it was taken)"""
    batches: list[int] = field(default_factory=list)
    reads: int = 0
    gas_a_node: int = 100_000
    block_gas: int = 30_000_000
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    held_back: Callable[[], bool] = lambda: False
    """Whether a transaction is mined later than its sender waits."""
    pending: list[Callable[[], object]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        return 1 + int(self.time) // 100

    @property
    def phase(self) -> Phase:
        return Phase.COMMIT if int(self.time) % 100 < RULES.commit_seconds else Phase.REVEAL

    def mine_pending(self) -> None:
        """What was held back happens now, as far as the contract takes it."""
        waiting, self.pending = self.pending, []
        for transaction in waiting:
            try:
                transaction()
            except TransactionReverted:
                continue

    def others_settle(self, nodes: Iterable[Address], epoch: int) -> None:
        for node in nodes:
            if (epoch, node) in self.rated:
                self.settled[node] = NodeScore(self.rated.pop((epoch, node)), epoch)

    # ---- the part of `Reputation` that a publisher uses ----

    async def now(self) -> EpochNow:
        self._read()
        start = (self.epoch - 1) * 100
        until = start + (RULES.commit_seconds if self.phase is Phase.COMMIT else 100)
        return EpochNow(self.epoch, self.phase, UnixTime(until))

    async def parameters(self) -> OracleParameters:
        self._read()
        return RULES

    async def seat(self, validator: Address) -> Seat:
        self._read()
        assert validator == self.me
        return self.held

    async def scores(self, nodes: Sequence[Address]) -> dict[Address, NodeScore | None]:
        self._read()
        return {node: self.settled.get(node) for node in nodes}

    async def ratings(self, epoch: int, node: Address) -> Ratings:
        self._read()
        return Ratings(1, RULES.min_total_stake) if (epoch, node) in self.rated else Ratings(0, Nectar(0))

    async def settle_gas(self, epoch: int, nodes: Sequence[Address]) -> int:
        self._read()
        gas = self.gas_a_node * len(nodes)
        if gas > self.block_gas:
            raise RpcRefused("gas required exceeds allowance")
        return gas

    async def commit(self, sheet: ScoreSheet, *, epoch: int) -> int:
        commitment = sheet.commitment(epoch, self.me)

        def happen() -> int:
            taken = self.phase is Phase.COMMIT and self.held.epoch != self.epoch
            self.commits.append((epoch, self.epoch if taken else 0, commitment))
            if not taken:
                raise TransactionReverted("commit", reason="AlreadyCommitted or WrongPhase")
            self.held = Seat(self.epoch, commitment, False)
            return epoch

        return self._transact(happen)

    async def reveal(self, sheet: ScoreSheet) -> object:
        sent_in = self.epoch

        def happen() -> int:
            matches = sheet.commitment(self.epoch, self.me) == self.held.commitment
            fresh = self.held.epoch == self.epoch and not self.held.revealed
            taken = self.phase is Phase.REVEAL and fresh and matches
            self.reveals.append((sent_in, sheet, taken))
            if not taken:
                raise TransactionReverted("reveal", reason="no")
            self.held = Seat(self.epoch, self.held.commitment, True)
            self.rated |= {(self.epoch, node): s for node, s in zip(sheet.nodes, sheet.scores, strict=True)}
            return self.epoch

        return self._transact(happen)

    async def settle(self, epoch: int, nodes: Sequence[Address]) -> object:
        def happen() -> int:
            assert 0 < len(nodes) <= 64
            self.batches.append(len(nodes))
            for node in nodes:
                known = self.settled.get(node)
                if known is not None and known.epoch >= epoch:
                    continue
                if epoch >= self.epoch or (epoch, node) not in self.rated:
                    raise TransactionReverted("settle", reason="EpochNotOver or TooFewRatings")
            self.others_settle(nodes, epoch)
            return len(nodes)

        return self._transact(happen)

    def _read(self) -> None:
        self.reads += 1
        self.before()
        self.after()

    def _transact(self, happen: Callable[[], int]) -> int:
        self.before()
        if self.held_back():
            self.pending.append(happen)
            self.after()
            raise RpcRefused("not mined in time")
        result = happen()
        self.after()
        return result
