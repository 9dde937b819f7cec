"""The gateway's way in, over HTTP: keys, budgets, privacy and room, and 200 streams at once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from gateway_backends import MODEL, Scripted

from corolla.gateway.admission import Limits
from corolla.gateway.app import create_app
from corolla.gateway.backend import Backend
from corolla.gateway.door import Door
from corolla.gateway.fallback import Fallback, Option
from corolla.gateway.gate import Gate
from corolla.gateway.keys import new_key
from corolla.gateway.ledger import Ledger
from corolla.gateway.policy import Conditions
from corolla_core.protocol.errors import InsufficientFunds, NoRoute, UpstreamRefused
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.gateway_store import GatewayStore
from corolla_core.store.store import Store

COST = 3


@dataclass
class World:
    """A gateway over HTTP and its books."""

    http: httpx.AsyncClient
    books: GatewayStore
    door: Door

    def key(self, label: str, *, budget: int | None = 1000, private: bool = False) -> dict[str, str]:
        made = new_key(label, now=UnixTime(1), budget=None if budget is None else Nectar(budget), private=private)
        self.books.add(made.key)
        return {"Authorization": f"Bearer {made.secret}"}

    async def ask(
        self, key: dict[str, str], *, stream: bool = False, over: httpx.AsyncClient | None = None, **body: Any
    ) -> httpx.Response:
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10} | body
        return await (over or self.http).post("/v1/chat/completions", json=asked | {"stream": stream}, headers=key)

    def spent(self) -> dict[str, tuple[int, int]]:
        return {key.label: (key.spent_ever, reserved) for key, reserved in self.books.listed()}


@asynccontextmanager
async def gateway(folder: Path, backend: Backend, limits: Limits | None = None) -> AsyncIterator[World]:
    async with Store.open(folder / "books.db") as store, Ledger(store, leases=folder / "leases") as ledger:
        door = Door(limits)
        app = create_app(backend, gate=Gate(backend, door=door, ledger=ledger))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        limitless = httpx.Limits(max_connections=None)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limitless, timeout=30) as http:
                yield World(http, GatewayStore(store), door)
        finally:
            server.should_exit = True
            await serving


def run(folder: Path, backend: Backend, test: Callable[[World], Awaitable[None]], limits: Limits | None = None) -> None:
    async def main() -> None:
        async with gateway(folder, backend, limits) as world:
            await test(world)
            assert (world.door.line.busy, world.door.line.waiting) == (0, ())

    asyncio.run(main())


def error_of(response: httpx.Response) -> dict[str, Any]:
    told: dict[str, Any] = response.json()["error"]
    assert told.keys() == {"message", "type", "param", "code"}
    return told


def test_nothing_is_answered_without_a_key_and_no_key_is_told_from_another(tmp_path: Path) -> None:
    backend = Scripted()

    async def test(world: World) -> None:
        world.key("alice")
        wrong = {"Authorization": "Bearer sk-corolla-" + "a" * 43}
        for headers in ({}, wrong, {"Authorization": "Basic x"}):
            for response in (await world.ask(headers), await world.http.get("/v1/models", headers=headers)):
                assert response.status_code == 401
                assert error_of(response)["code"] == "invalid_api_key"
                assert response.headers["www-authenticate"] == "Bearer"
        assert backend.asked == []

    run(tmp_path, backend, test)


def test_a_budget_is_spent_to_the_last_and_then_it_is_402(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        alice, bob = world.key("alice", budget=17), world.key("bob", budget=None)
        # 17 covers the 10 that a text can cost three times: 17, 14 and 11 are left before, 8 after.
        statuses = [(await world.ask(alice, stream=bool(n % 2))).status_code for n in range(4)]
        assert statuses == [200, 200, 200, 402]
        refused = await world.ask(alice)
        assert error_of(refused)["type"] == "insufficient_quota"
        assert (await world.ask(alice, max_tokens=8)).status_code == 200, "what is left covers a shorter text"
        assert (await world.ask(bob)).status_code == 200
        assert world.spent() == {"alice": (4 * COST, 0), "bob": (COST, 0)}

    run(tmp_path, Scripted(), test)


def test_many_at_once_never_pass_a_budget(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        alice = world.key("alice", budget=45)
        statuses = Counter(
            response.status_code for response in await asyncio.gather(*(world.ask(alice) for _ in range(30)))
        )
        assert set(statuses) == {200, 402}
        assert statuses[200] >= 4
        assert world.spent()["alice"] == (COST * statuses[200], 0)

    run(tmp_path, Scripted(pause=0.02), test)


def test_a_text_that_fails_costs_what_was_said_and_one_cut_off_by_the_client_too(tmp_path: Path) -> None:
    backend = Scripted(error=NoRoute("the last node left"))

    async def test(world: World) -> None:
        alice = world.key("alice")
        assert "no_route" in (await world.ask(alice, stream=True)).text
        assert world.spent()["alice"] == (COST, 0)
        backend.words, backend.pause = ["word "] * 100, 0.01
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, "stream": True}
        async with world.http.stream("POST", "/v1/chat/completions", json=body, headers=alice) as response:
            async for _ in response.aiter_lines():
                break
        async with asyncio.timeout(5):
            while world.door.line.busy:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        spent, reserved = world.spent()["alice"]
        assert COST < spent < COST + 100
        assert reserved == 0

    run(tmp_path, backend, test)


def test_private_prompts_stay_in_the_private_swarm_by_header_or_by_key(tmp_path: Path) -> None:
    hospital, elsewhere = Scripted(words=(), error=NoRoute("down")), Scripted()
    policy = Fallback(
        [(Conditions(private=True), Option("hospital", hospital)), (Conditions(), Option("elsewhere", elsewhere))]
    )

    async def test(world: World) -> None:
        alice, doctor = world.key("alice"), world.key("doctor", private=True)
        say = "X-Corolla-Privacy"
        for headers in (alice | {say: "private"}, alice | {say: "Private"}, doctor, doctor | {say: "public"}):
            response = await world.ask(headers)
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
        assert elsewhere.asked == [], "the private swarm is down, and that is an error, not a fallback"
        assert (await world.ask(alice | {say: "privat"})).status_code == 400
        told = await world.ask(alice)
        assert (told.status_code, told.headers["x-corolla-backend"]) == (200, "elsewhere")
        hospital.words, hospital.error = ("well",), None
        assert (await world.ask(doctor)).headers["x-corolla-backend"] == "hospital"

    run(tmp_path, policy, test)


@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [
        (UpstreamRefused("slow down", status=429, retry_after=7), 429, "7"),
        (UpstreamRefused("bad temperature", status=400), 400, None),
        (UpstreamRefused("who are you", status=401), 503, "20"),
        (InsufficientFunds("deposit more"), 402, None),
    ],
)
def test_how_an_endpoint_or_the_deposit_fails_is_told_as_openai_tells_it(
    tmp_path: Path, error: Any, status: int, wait: str | None
) -> None:
    async def test(world: World) -> None:
        response = await world.ask(world.key("alice"))
        assert (response.status_code, response.headers.get("retry-after")) == (status, wait)
        assert error_of(response)
        assert world.spent()["alice"] == (0, 0)

    run(tmp_path, Scripted(words=(), error=error), test)


def test_one_keys_flood_leaves_room_for_another(tmp_path: Path) -> None:
    backend = Scripted(pause=0.05)

    async def test(world: World) -> None:
        flood, small = world.key("flood"), world.key("small")
        pouring = [asyncio.create_task(world.ask(flood)) for _ in range(20)]
        await asyncio.sleep(0.1)
        response = await world.ask(small)
        assert response.status_code == 200
        statuses = Counter(each.status_code for each in await asyncio.gather(*pouring))
        assert statuses[200] >= 4
        assert statuses[429] >= 8

    run(tmp_path, backend, test, Limits(running=4, per_key=4, waiting=4, patience=5))


def test_200_streams_run_at_once_and_50_more_are_told_to_come_again(tmp_path: Path) -> None:
    backend = Scripted(words=["word "] * 8, pause=0.01, together=200)

    async def test(world: World) -> None:
        keys = [world.key(f"k{number}") for number in range(5)]

        async def one(number: int) -> tuple[int, str, int]:
            response = await world.ask(keys[number % 5], stream=True, over=clients[number // 10])
            said = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
            words = "".join(each["choices"][0]["delta"].get("content") or "" for each in said if each.get("choices"))
            return response.status_code, words, int(response.headers.get("retry-after", 0))

        async with AsyncExitStack() as stack:
            # httpx looks through all connections of a client at every request, so each has few.
            made = [httpx.AsyncClient(base_url=world.http.base_url, timeout=30, verify=False) for _ in range(25)]
            clients = [await stack.enter_async_context(each) for each in made]
            ends = await asyncio.gather(*(one(number) for number in range(250)))
        assert Counter(status for status, _, _ in ends) == {200: 200, 429: 50}
        assert {words for status, words, _ in ends if status == 200} == {"word " * 8}
        assert all(wait >= 1 for status, _, wait in ends if status == 429)
        assert backend.most_running == 200
        assert sum(spent for spent, _ in world.spent().values()) == 200 * 8
        assert {reserved for _, reserved in world.spent().values()} == {0}

    run(tmp_path, backend, test, Limits(running=200, per_key=200, waiting=0, patience=5))
