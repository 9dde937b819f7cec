"""However requests come and go, the gateway runs as many as it may, no key starves another, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from corolla.gateway import admission
from corolla.gateway.admission import FIRST_WAIT, LEAST_WAIT, MOST_WAIT, Limits, Line, Moved, Pace
from corolla.gateway.door import Door
from corolla_core.protocol.errors import InvalidInput, Overloaded

LIMITS = Limits(running=6, per_key=4, waiting=5, patience=10)
KEYS = ("a", "b", "c")


class Coming(RuleBasedStateMachine):
    """Requests of three keys; what the line says of each is compared with what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line()
        self.now = 0.0
        self.count = 0
        self.asked: dict[int, tuple[str, int]] = {}
        self.running: set[int] = set()

    def told(self, moved: Moved) -> None:
        waiting = set(self.asked) - self.running
        assert set(moved.admitted) <= waiting
        assert not set(moved.admitted) & set(moved.shed)
        self.running |= set(moved.admitted)
        for ticket in moved.shed:
            assert ticket in waiting
            del self.asked[ticket]
        self.line = moved.line

    @rule(key=st.sampled_from(KEYS), streams=st.integers(1, 4))
    def one_comes(self, key: str, streams: int) -> None:
        self.count += 1
        self.asked[self.count] = (key, streams)
        before = len(self.line.waiting)
        moved = admission.arrive(self.line, self.count, key=key, streams=streams, limits=LIMITS)
        assert not moved.shed or before == LIMITS.waiting, "nobody is turned away while there is room to wait"
        self.told(moved)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), seconds=st.floats(0, 5))
    def one_ends(self, data: st.DataObject, seconds: float) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.running)))
        self.now += seconds
        self.running.remove(ticket)
        key, streams = self.asked.pop(ticket)
        self.told(admission.depart(self.line, key=key, streams=streams, now=self.now, limits=LIMITS))

    @precondition(lambda self: self.line.waiting)
    @rule(data=st.data())
    def one_waits_no_longer(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from([each.ticket for each in self.line.waiting]))
        del self.asked[ticket]
        self.told(admission.give_up(self.line, ticket, limits=LIMITS))

    @invariant()
    def limits_hold_and_everybody_is_somewhere(self) -> None:
        streams = dict.fromkeys(KEYS, 0)
        for ticket in self.running:
            key, number = self.asked[ticket]
            streams[key] += number
        assert dict(self.line.running) == {key: number for key, number in streams.items() if number}
        assert sum(streams.values()) <= LIMITS.running
        assert max(streams.values()) <= LIMITS.per_key
        assert [each.ticket for each in self.line.waiting] == sorted(set(self.asked) - self.running)
        assert len(self.line.waiting) <= LIMITS.waiting
        assert LEAST_WAIT <= admission.retry_after(self.line, 1) <= MOST_WAIT

    @invariant()
    def no_place_stays_empty_unless_for_a_larger_request(self) -> None:
        room = LIMITS.running - self.line.busy
        first = {each.key: each for each in reversed(self.line.waiting)}
        able = [w for w in first.values() if self.line.running.get(w.key, 0) + w.streams <= LIMITS.per_key]
        assert not able or any(each.streams > room for each in able)


Coming.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestComing = Coming.TestCase


@given(flood=st.integers(11, 40))
def test_a_key_that_floods_neither_runs_all_nor_keeps_another_out(flood: int) -> None:
    line = Line()
    limits = Limits(running=6, per_key=6, waiting=5)
    for ticket in range(flood):
        line = admission.arrive(line, ticket, key="flood", streams=1, limits=limits).line
    moved = admission.arrive(line, 1000, key="small", streams=1, limits=limits)
    assert 1000 not in moved.shed, "the newest of the flood makes room"
    after = admission.depart(moved.line, key="flood", streams=1, now=1.0, limits=limits)
    assert after.admitted == (1000,), "and the next to run is of the key that runs least"


def test_keys_take_turns() -> None:
    limits, line, turns = Limits(running=1, per_key=1, waiting=9), Line(), ""
    names = {}
    for ticket, key in enumerate("aaabbbc"):
        names[ticket] = key
        line = admission.arrive(line, ticket, key=key, streams=1, limits=limits).line
    running = "a"
    while line.busy:
        turns += running
        moved = admission.depart(line, key=running, streams=1, now=0.0, limits=limits)
        line = moved.line
        running = names[moved.admitted[0]] if moved.admitted else ""
    assert sorted(turns) == sorted("aaabbbc")
    assert turns[:3] in ("abc", "acb")
    assert turns[3:5] in ("ab", "ba")


@pytest.mark.parametrize("streams", [0, 5])
def test_what_could_never_run_is_refused_at_once(streams: int) -> None:
    with pytest.raises(InvalidInput):
        admission.arrive(Line(), 1, key="a", streams=streams, limits=LIMITS)


def test_what_a_client_is_told_to_wait_is_as_streams_end() -> None:
    pace = Pace()
    assert pace.wait(3) == FIRST_WAIT
    for now in range(0, 100, 2):
        pace = pace.ended(float(now), 1)
    assert pace.wait(5) == 10
    assert pace.wait(1000) == MOST_WAIT
    for now in range(100, 200):
        pace = pace.ended(float(now), 4)
    assert pace.wait(9) == math.ceil(9 * 0.25)


def run(coroutine: object) -> None:
    asyncio.run(coroutine)  # type: ignore[arg-type]


def test_whoever_waits_too_long_is_told_when_to_come_again() -> None:
    async def main() -> None:
        door = Door(Limits(running=1, per_key=1, waiting=1, patience=0.02))
        async with door.passed("a"):
            with pytest.raises(Overloaded) as refused:
                async with door.passed("b"):
                    pass
            assert refused.value.retry_after == FIRST_WAIT
        async with door.passed("b"):
            pass
        assert (door.line.busy, door.line.waiting) == (0, ())

    run(main())


@settings(max_examples=40)
@given(
    plan=st.lists(
        st.tuples(st.sampled_from(KEYS), st.integers(1, 3), st.integers(0, 6), st.integers(0, 6) | st.none()),
        max_size=25,
    )
)
def test_the_door_never_keeps_a_place_for_who_left_by_whatever_way(
    plan: list[tuple[str, int, int, int | None]],
) -> None:
    async def main() -> None:
        door = Door(Limits(running=4, per_key=3, waiting=3, patience=5))
        seen = 0

        async def ask(key: str, streams: int, steps: int) -> None:
            nonlocal seen
            async with door.passed(key, streams):
                seen += streams
                assert seen <= door.limits.running
                try:
                    for _ in range(steps):
                        await asyncio.sleep(0)
                finally:
                    seen -= streams

        async def cancelled_after(task: asyncio.Task[None], steps: int | None) -> None:
            if steps is not None:
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()

        tasks = [(asyncio.create_task(ask(key, streams, steps)), after) for key, streams, steps, after in plan]
        await asyncio.gather(*(cancelled_after(task, after) for task, after in tasks))
        ends = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert all(end is None or isinstance(end, (Overloaded, asyncio.CancelledError)) for end in ends)
        assert (seen, door.line.busy, door.line.waiting) == (0, 0, ())

    run(main())
