"""Where a request runs: the first backend that fits, no text twice, and private prompts in the private swarm only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest
from gateway_backends import MODEL, Scripted
from hypothesis import given, settings
from hypothesis import strategies as st

from corolla.gateway.backend import Ask
from corolla.gateway.fallback import Fallback, Option
from corolla.gateway.policy import REMEMBERED, Conditions
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.errors import (
    ConfigError,
    CorollaError,
    InsufficientFunds,
    InvalidInput,
    NoBackend,
    NoRoute,
    PeerTimeout,
    PrivacyUnmet,
    UpstreamRefused,
)
from corolla_core.protocol.units import Nectar

ASK = Ask(MODEL, "hello", SamplingParams(max_tokens=10))
FAILURES = (NoRoute("gone"), PeerTimeout("slow"), UpstreamRefused("no", status=500), InsufficientFunds("empty"))


@dataclass(frozen=True)
class Given:
    """One backend of a policy: how it is used, how many words it says before it fails, and whether it does."""

    private: bool
    has_model: bool
    price: int
    most_cost: int | None
    words: int
    fails: CorollaError | None

    @property
    def fits(self) -> bool:
        return self.has_model and (self.most_cost is None or 10 * self.price <= self.most_cost)


givens = st.builds(
    Given,
    private=st.booleans(),
    has_model=st.sampled_from([True, True, True, False]),
    price=st.integers(1, 5),
    most_cost=st.none() | st.integers(10, 50),
    words=st.integers(0, 3),
    fails=st.none() | st.sampled_from(FAILURES),
)


def made_of(policy: list[Given]) -> tuple[Fallback, list[Scripted]]:
    scripts = [
        Scripted(
            words=[f"{number}.{word} " for word in range(each.words)],
            error=each.fails,
            price=each.price,
            names=(MODEL,) if each.has_model else ("another",),
        )
        for number, each in enumerate(policy)
    ]
    backends = [
        (
            Conditions(private=each.private, most_cost=None if each.most_cost is None else Nectar(each.most_cost)),
            Option(f"b{number}", script),
        )
        for number, (each, script) in enumerate(zip(policy, scripts, strict=True))
    ]
    return Fallback(backends), scripts


@settings(max_examples=300)
@given(policy=st.lists(givens, min_size=1, max_size=5), private=st.booleans())
def test_the_first_that_fits_and_speaks_makes_the_text_and_a_private_one_stays_private(
    policy: list[Given], private: bool
) -> None:
    fallback, scripts = made_of(policy)

    async def main() -> tuple[str, str, CorollaError | None, int]:
        running, text, failed = fallback.start(replace(ASK, private=private)), "", None
        try:
            async for delta in running:
                text += delta.text
        except CorollaError as error:
            failed = error
        await running.aclose()
        name = "" if isinstance(failed, (PrivacyUnmet, NoBackend)) else running.route.backend
        return text, name, failed, running.spent.cost

    text, name, failed, cost = asyncio.run(main())

    if private:
        leaked = [script for script, each in zip(scripts, policy, strict=True) if script.asked and not each.private]
        assert not leaked, "a private prompt reached a backend that is not private"
    able = [n for n, each in enumerate(policy) if each.fits and (each.private or not private)]
    ends = next((n for n in able if policy[n].words or policy[n].fails is None), None)
    tried = able if ends is None else able[: able.index(ends) + 1]
    assert [n for n, script in enumerate(scripts) if script.asked] == tried
    assert all(len(script.asked) <= 1 and script.running == 0 for script in scripts)
    assert cost == sum(policy[n].words * policy[n].price for n in tried)
    if ends is not None:
        assert text == "".join(f"{ends}.{word} " for word in range(policy[ends].words)), "of one backend, once"
        assert (name, failed) == (f"b{ends}", policy[ends].fails)
    else:
        assert text == ""
        if tried:
            assert failed is policy[tried[-1]].fails
        else:
            assert isinstance(failed, PrivacyUnmet if private else NoBackend)


def read(fallback: Fallback, ask: Ask = ASK) -> str:
    async def main() -> str:
        running = fallback.start(ask)
        async for _ in running:
            pass
        return running.route.backend

    return asyncio.run(main())


def test_a_backend_that_was_slow_is_passed_by_for_a_while_and_tried_again_after() -> None:
    now = 0.0

    slow, quick = Scripted(), Scripted()
    fallback = Fallback(
        [(Conditions(most_wait=1.0), Option("slow", slow)), (Conditions(), Option("quick", quick))], clock=lambda: now
    )
    fallback.saw(Option("slow", slow), 5.0)
    assert read(fallback) == "quick"
    now = REMEMBERED + 1
    assert read(fallback) == "slow"
    assert read(fallback) == "slow", "it is quick now"


def test_a_wrong_request_is_not_sent_to_the_next() -> None:
    first, second = Scripted(words=(), error=InvalidInput("too long")), Scripted()
    fallback = Fallback([(Conditions(), Option("first", first)), (Conditions(), Option("second", second))])
    with pytest.raises(InvalidInput):
        read(fallback)
    assert not second.asked


def test_what_is_reserved_covers_every_backend_that_may_be_tried() -> None:
    policy = [
        Given(False, True, 3, None, 0, FAILURES[0]),
        Given(True, True, 2, None, 1, None),
        Given(False, True, 5, 10, 1, None),
        Given(False, False, 9, None, 1, None),
    ]
    fallback, _ = made_of(policy)
    assert asyncio.run(fallback.most(ASK)) == 50
    assert asyncio.run(fallback.most(replace(ASK, private=True))) == 20


def test_it_lacks_nothing_while_any_backend_can_work() -> None:
    down, up = Scripted(lacks=["no nodes"]), Scripted()
    both = Fallback([(Conditions(), Option("down", down)), (Conditions(), Option("up", up))])
    assert asyncio.run(both.lacking()) == []
    up.lacks = ["no key"]
    assert asyncio.run(both.lacking()) == ["down: no nodes", "up: no key"]
    assert both.models == [MODEL]


def test_a_policy_has_backends_with_names_of_their_own() -> None:
    twice = (Conditions(), Option("same", Scripted()))
    with pytest.raises(ConfigError):
        Fallback([])
    with pytest.raises(ConfigError):
        Fallback([twice, twice])
