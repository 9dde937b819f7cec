"""A validator's probes: paid from a capped purse, remembered, judged when nobody can learn from it any more."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from books import PAYEE, receipt
from databases import database, postgres_server, store
from sqlalchemy import func, select

from corolla_core.chain.network import Network
from corolla_core.protocol.errors import ConfigError, KeystoreError, ProcessFailed, TransactionReverted
from corolla_core.protocol.ids import Address, SessionId
from corolla_core.protocol.units import ONE_NECTAR, Nectar, UnixTime, Wei
from corolla_core.store.probes import DAY_SECONDS, SETTLE_SECONDS, Lengths, ProbeAccount, ProbeLog, sessions_in
from corolla_core.store.schema import probe_accounts
from corolla_core.store.store import Store
from corolla_core.store.validator_store import ValidatorStore
from corolla_validator.cli.audits import purse_of
from corolla_validator.config import ValidatorSettings
from corolla_validator.probe_client import Answer, ClientProgram
from corolla_validator.probe_purse import ChainPurse
from corolla_validator.probes import Material, ProbePlan, Probes
from corolla_validator.rounds import TRIES

__all__ = ["database", "postgres_server", "store"]
DEPOSIT = ONE_NECTAR
NOW = 1_800_000_000


def account(number: int) -> Address:
    return Address(f"0x{number:040x}")


def session(number: int) -> SessionId:
    return SessionId(number.to_bytes(16, "big"))


def given_to(number: int, *, at: int = NOW, ends: int = NOW + 100, deposit: int = DEPOSIT) -> ProbeAccount:
    return ProbeAccount(account(number), Nectar(deposit), UnixTime(at), UnixTime(ends))


# The books


def test_no_more_is_given_in_a_day_than_a_days_money(store: Store, database: str) -> None:
    log, daily = ProbeLog(store), Nectar(2 * DEPOSIT + DEPOSIT // 2)
    assert log.fund(given_to(1), daily=daily)
    assert log.fund(given_to(2, at=NOW + 60), daily=daily)
    with Store.open(database) as again:  # a validator that starts anew knows what left the purse
        assert not ProbeLog(again).fund(given_to(3, at=NOW + 120), daily=daily)
        assert ProbeLog(again).fund(given_to(4, at=NOW + 120, deposit=DEPOSIT // 2), daily=daily)
    assert not log.fund(given_to(5, at=NOW + DAY_SECONDS - 1), daily=daily)
    assert log.fund(given_to(6, at=NOW + DAY_SECONDS), daily=daily)  # the first is a day ago
    assert log.given(at=UnixTime(NOW + DAY_SECONDS)) == 2 * DEPOSIT + DEPOSIT // 2
    assert [each.account for each in log.accounts(at=UnixTime(NOW))] == [account(n) for n in (1, 2, 4, 6)]


def test_sessions_are_for_judging_once_their_account_is_over(store: Store) -> None:
    log = ProbeLog(store)
    log.fund(given_to(1, ends=NOW + 100), daily=Nectar(10 * DEPOSIT))
    log.fund(given_to(2, ends=NOW + 900), daily=Nectar(10 * DEPOSIT))
    assert log.remember(account(1), [session(1), session(2)], at=UnixTime(NOW)) == 2
    assert log.remember(account(1), [session(1), session(2), session(3)], at=UnixTime(NOW + 1)) == 1
    log.remember(account(2), [session(4)], at=UnixTime(NOW + 40))
    log.remember(account(1), [session(5)], at=UnixTime(NOW + 99))
    assert log.to_judge(at=UnixTime(NOW + 99)) == []
    assert log.to_judge(at=UnixTime(NOW + 100)) == [session(1), session(2), session(3)]
    log.judged(session(2), at=UnixTime(NOW + 100))
    log.end(account(2), at=UnixTime(NOW + 101))
    assert log.to_judge(at=UnixTime(NOW + 101)) == [session(1), session(3), session(4)]
    # Its receipts may not have been read from all its nodes yet.
    assert session(5) not in log.to_judge(at=UnixTime(NOW + 98 + SETTLE_SECONDS))
    assert session(5) in log.to_judge(at=UnixTime(NOW + 99 + SETTLE_SECONDS))


def signed(name: int, *, start: int, count: int, node: int = 0) -> Any:
    made = receipt(start=start, count=count).receipt
    return replace(made, session_id=session(name), t_out=name * 1000 + start + node)


def test_lengths_are_those_of_others_sessions_the_latest_first(store: Store) -> None:
    books, log = ValidatorStore(store), ProbeLog(store)
    for made in (
        signed(1, start=0, count=30), signed(1, start=30, count=2), signed(1, start=32, count=8),
        signed(2, start=0, count=128), signed(2, start=128, count=72), signed(2, start=200, count=8),
        signed(3, start=0, count=5), signed(3, start=5, count=3),
        signed(4, start=0, count=50),
        signed(5, start=0, count=99), signed(5, start=99, count=8),
    ):  # fmt: skip
        books.record_receipt(made.sign(PAYEE))
    log.fund(given_to(1), daily=Nectar(DEPOSIT))
    log.remember(account(1), [session(5)], at=UnixTime(NOW))  # its own: probes must not be shaped after probes
    found = log.lengths(limit=10)
    assert sorted(found, key=lambda each: each.prompt) == [Lengths(5, 3), Lengths(30, 10), Lengths(200, 8)]
    assert log.lengths(limit=2) == [Lengths(5, 3)]  # the latest two, one of which generated nothing
    assert set(sessions_in(store)) == {session(n) for n in range(1, 6)}


# The round


class FakeProgram:
    """Makes accounts that answer; each answer leaves a session in the account's books."""

    def __init__(self) -> None:
        self.made = 0
        self.asked: list[tuple[Address, str, int]] = []
        self.deposits: list[tuple[Address, int]] = []
        self.books: dict[Address, list[SessionId]] = {}
        self.failing: str | None = None

    def new_account(self) -> Address:
        self.made += 1
        self.books[account(self.made)] = []
        return account(self.made)

    async def deposit(self, account: Address, amount: Nectar) -> None:
        self.deposits.append((account, amount))

    async def generate(self, account: Address, prompt: str, *, max_tokens: int) -> Answer:
        if self.failing is not None:
            raise ProcessFailed(self.failing, name="generate", status=1)
        self.asked.append((account, prompt, max_tokens))
        self.books[account].append(session(len(self.asked)))
        return Answer(f"answer {len(self.asked)}", 10, 5, Nectar(3), ("0xa",))

    def sessions(self, account: Address) -> list[SessionId]:
        return self.books.get(account, [])


class FakePurse:
    def __init__(self) -> None:
        self.given: list[int] = []
        self.left = 10**30
        self.failing = False

    async def holds(self, amount: Nectar) -> bool:
        return self.left >= amount

    async def give(self, account: Address, amount: Nectar) -> None:
        if self.failing:
            raise TransactionReverted("no", reason="no")
        self.left -= amount
        self.given.append(amount)


class FakeJudges:
    def __init__(self) -> None:
        self.asked: list[SessionId] = []
        self.withheld: list[Address] = []

    async def audit_session(self, session: SessionId) -> list[Address]:
        self.asked.append(session)
        return self.withheld


class World:
    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.now = float(NOW)
        self.program, self.purse, self.judges = FakeProgram(), FakePurse(), FakeJudges()
        self.events: list[dict[str, object]] = []
        self.probes = self.fresh()

    def fresh(self, *, per_hour: float = 3600.0, daily: int = 10 * DEPOSIT, seed: int = 1) -> Probes:
        self.probes = Probes(
            self.program, self.purse, self.judges,
            store=self.store,
            material=Material(self.folder / "material.txt", first="some words to begin with " * 50),
            count=lambda text: len(text.split()), clock=lambda: self.now, rng=Random(seed), tell=self.events.append,
            plan=ProbePlan(per_hour, Nectar(daily), DEPOSIT, pool=2, life=1000.0),
        )  # fmt: skip
        return self.probes

    async def passes(self, rounds: int, *, every: float = 1.0) -> None:
        for _ in range(rounds):
            self.now += every
            await self.probes.round()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Store.open(tmp_path / "books.db") as store:
        yield World(store, tmp_path)


@pytest.mark.anyio
async def test_probes_come_at_their_rate_from_a_few_accounts_and_are_judged_when_these_are_over(world: World) -> None:
    world.fresh(per_hour=360.0)
    await world.passes(400)
    assert 20 <= len(world.program.asked) <= 60
    assert world.program.made == 2
    assert {who for who, *_ in world.program.asked} == {account(1), account(2)}
    assert world.judges.asked == []
    asked = len(world.program.asked)
    await world.passes(1200)
    assert world.judges.asked[: min(asked, 20)]
    assert len(set(world.judges.asked)) == len(world.judges.asked)  # each once
    assert world.program.made > 2  # others took over


@pytest.mark.anyio
async def test_accounts_are_not_told_by_the_sum_they_were_given(world: World) -> None:
    world.fresh(per_hour=36.0)
    await world.passes(100, every=60.0)
    assert world.purse.given == [amount for _, amount in world.program.deposits]
    assert len(set(world.purse.given)) > 3
    assert all(DEPOSIT // 2 <= amount <= 3 * DEPOSIT // 2 for amount in world.purse.given)


@pytest.mark.anyio
async def test_a_days_money_is_not_passed_by_starting_again(world: World) -> None:
    for seed in range(6):
        world.fresh(per_hour=36.0, daily=2 * DEPOSIT, seed=seed)
        await world.passes(60, every=60.0)
    assert 0 < sum(world.purse.given) <= 2 * DEPOSIT
    assert world.program.made == len(world.purse.given)  # no keys are made for nothing
    assert {"event": "probe", "outcome": "no money left for today"} in world.events
    world.now += DAY_SECONDS
    await world.passes(20, every=60.0)
    assert sum(world.purse.given) > DEPOSIT


@pytest.mark.anyio
async def test_money_that_left_the_purse_counts_though_the_account_never_probed(world: World) -> None:
    world.purse.failing = True
    failed = 0
    for _ in range(200):
        world.now += 1
        try:
            await world.probes.round()
        except TransactionReverted:
            failed += 1
    with world.store.transaction() as connection:
        noted = connection.execute(select(func.count()).select_from(probe_accounts)).scalar()
    assert noted == failed > 3
    assert world.program.asked == []
    assert ProbeLog(world.store).accounts(at=UnixTime(int(world.now))) == []


@pytest.mark.anyio
async def test_an_empty_purse_is_told_and_no_account_is_made(world: World) -> None:
    world.purse.left = 1
    await world.passes(5)
    assert world.program.made == 0
    assert {event["outcome"] for event in world.events} == {"the purse is empty"}


@pytest.mark.anyio
async def test_an_account_without_money_is_over_and_one_that_failed_is_not(world: World) -> None:
    await world.passes(5)
    before = ProbeLog(world.store).accounts(at=UnixTime(int(world.now)))
    world.program.failing = "error: NoRoute: nobody serves some of the blocks"
    await world.passes(5)
    log = ProbeLog(world.store)
    assert log.accounts(at=UnixTime(int(world.now)))[: len(before)] == before
    world.program.failing = "error: InsufficientFunds: deposit more to open this tranche"
    await world.passes(2 * SETTLE_SECONDS)
    world.program.failing = None
    gone = {each.account for each in before} - {each.account for each in log.accounts(at=UnixTime(int(world.now)))}
    assert gone
    assert {"failed", "has spent its deposit"} <= {event["outcome"] for event in world.events}
    assert set(world.judges.asked) >= set(world.program.books[next(iter(gone))])


@pytest.mark.anyio
async def test_rows_that_are_not_shown_are_asked_for_again_and_then_told(world: World) -> None:
    await world.passes(3)
    world.judges.withheld = [account(77)]
    world.program.failing = "error: InsufficientFunds"
    await world.passes(SETTLE_SECONDS + 60 * (TRIES + 1))
    first = world.judges.asked[0]
    assert world.judges.asked.count(first) == TRIES
    told = [event for event in world.events if event["event"] == "withheld" and event["session"] == first.hex()]
    assert [event["node"] for event in told] == [account(77)]


@pytest.mark.anyio
async def test_sessions_of_a_run_that_was_killed_are_still_its_own(world: World) -> None:
    await world.passes(3)
    who = world.program.asked[0][0]
    world.program.books[who].append(session(200))  # made, and the validator died before it noted that
    world.fresh()
    await world.probes.load()
    log = ProbeLog(world.store)
    log.end(who, at=UnixTime(int(world.now)))
    assert session(200) in log.to_judge(at=UnixTime(int(world.now) + SETTLE_SECONDS))


# The client, as a program


def network() -> Network:
    here = Address("0x" + "00" * 19 + "01")
    return Network("probed", 1337, "http://127.0.0.1:1", here, here, here, here)


def fake_client(folder: Path, body: str) -> str:
    script = folder / "client.py"
    script.write_text(textwrap.dedent(body))
    return f"{sys.executable} {script}"


ECHO = """
    import json, os, sys
    home = os.environ["COROLLA_HOME"]
    seen = {"argv": sys.argv[1:], "stdin": sys.stdin.read(), "cwd": os.getcwd(),
            "settings": sorted(name for name in os.environ if name.startswith("COROLLA_")),
            "home": sorted(os.listdir(home))}
    usage = {"prompt_tokens": 3, "tokens": 2, "cost": "9"}
    print(json.dumps({"text": json.dumps(seen), "usage": usage, "route": [{"account": "0xa", "blocks": "0:4"}]}))
"""


@pytest.mark.anyio
async def test_a_probe_is_an_ordinary_clients_command_in_a_home_of_its_own(tmp_path: Path) -> None:
    program = ClientProgram(
        tmp_path / "probes", network(), "/models/m", models=tmp_path / "models", command=fake_client(tmp_path, ECHO),
        environ={"COROLLA_SPENDING_LIMIT": "1", "COROLLA_HOME": "/else", "PATH": "/bin"},
    )  # fmt: skip
    who, other = program.new_account(), program.new_account()
    answer = await program.generate(who, "Say it.", max_tokens=64)
    assert (answer.prompt_tokens, answer.tokens, answer.cost, answer.nodes) == (3, 2, 9, ("0xa",))
    seen = json.loads(answer.text)
    home = tmp_path / "probes" / who
    assert seen == {
        "argv": [
            "generate", "-", "--model=/models/m", "--max-tokens=64", "--temperature=0.8",
            "--network=probed", "--account=default", f"--password-file={home}/password", "--json",
        ],
        "stdin": "Say it.",
        "cwd": str(home),
        "settings": ["COROLLA_HOME"],
        "home": ["keys", "models", "networks", "password"],
    }  # fmt: skip
    assert (home / "password").read_text() != (tmp_path / "probes" / other / "password").read_text()
    assert (home / "password").stat().st_mode & 0o077 == 0
    assert program.sessions(who) == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import sys; print('error: NoRoute: nobody', file=sys.stderr); sys.exit(1)", "NoRoute"),
        ("print('{}')", "no JSON of ours"),
        ("print('[1, 2')", "no JSON of ours"),
        ("import sys; sys.exit(3)", "nothing"),
    ],
)
async def test_a_client_that_fails_or_says_nonsense_is_a_typed_error(tmp_path: Path, body: str, said: str) -> None:
    program = ClientProgram(
        tmp_path / "p", network(), "m", models=tmp_path / "models", command=fake_client(tmp_path, body)
    )
    with pytest.raises(ProcessFailed, match=said):
        await program.generate(program.new_account(), "x", max_tokens=1)


def test_sessions_come_from_the_clients_own_books(tmp_path: Path) -> None:
    program = ClientProgram(tmp_path / "p", network(), "m", models=tmp_path / "models")
    who = program.new_account()
    with Store.open(tmp_path / "p" / who / "client" / f"1337-{who.lower()}.db") as books:
        ValidatorStore(books).record_receipt(signed(9, start=0, count=3).sign(PAYEE))
    assert program.sessions(who) == [session(9)]


def test_the_account_that_stakes_never_pays_for_probes() -> None:
    with pytest.raises(ConfigError, match="another account"):
        ChainPurse(None, PAYEE, staked=PAYEE.address, gas=Wei(0))  # type: ignore[arg-type]


def test_probes_need_a_purse_and_its_password() -> None:
    assert purse_of(ValidatorSettings(), network()) is None
    with pytest.raises(ConfigError, match="--probe-purse"):
        purse_of(ValidatorSettings(probes_per_hour=1.0), network())
    with pytest.raises(KeystoreError, match="--probe-password-file"):
        purse_of(ValidatorSettings(probes_per_hour=1.0, probe_purse=Path("purse")), network())
