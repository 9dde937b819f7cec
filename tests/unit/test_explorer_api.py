"""The explorer over HTTP, its network made up: pages, what is new, who may ask, and what every answer carries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from explorer_world import BLOCKS, FakeNetwork, account, audited, explorer, served
from scripted_backend import MODEL as SCRIPTED
from scripted_backend import PRICE, PROMPT_TOKENS, ScriptedBackend

from corolla.gateway.app import create_app
from corolla_core.protocol.errors import ChainUnreachable
from corolla_core.protocol.ids import Address
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import nectar_to_text
from corolla_validator.explorer.headers import HEADERS
from corolla_validator.explorer.playground import AT_ONCE, MOST_TOKENS, ROUTE_HEADER, Playground
from corolla_validator.explorer.seats import Seats

pytestmark = pytest.mark.anyio
HOP = account(0)


@asynccontextmanager
async def looking(world: FakeNetwork, playground: Playground | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """At an explorer that has seen everything once."""
    async with (
        served(explorer(world, playground=playground)) as url,
        httpx.AsyncClient(base_url=url, timeout=10) as http,
    ):
        await until(http, "/api/nodes", account(0))
        yield http


async def until(http: httpx.AsyncClient, path: str, sign: str) -> None:
    for _ in range(100):
        if sign in (await http.get(path)).text:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{sign} is not in {path} after 5 s")


async def events(http: httpx.AsyncClient) -> AsyncIterator[dict[str, object]]:
    async with http.stream("GET", "/api/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


async def test_pages_of_a_list_are_cut_from_all_there_is_and_bounded() -> None:
    world = FakeNetwork.of_thirds()
    world.audits = tuple(audited(number, 0, session=number) for number in range(1, 8))
    async with looking(world) as http:
        await until(http, "/api/audits", '"total":7')
        first = (await http.get("/api/audits?limit=3")).json()
        last = (await http.get("/api/audits?limit=3&offset=6")).json()
        assert (first["total"], len(first["items"]), len(last["items"])) == (7, 3, 1)
        assert first["items"][0]["session"].endswith("07")
        assert last["items"][0]["session"].endswith("01")
        for wrong in ("limit=0", "limit=201", "offset=-1", "limit=x"):
            assert (await http.get(f"/api/audits?{wrong}")).status_code == 422
        node = (await http.get(f"/api/nodes/{account(0)}")).json()
        assert node["audits"] == {"passed": 7, "failed": 0, "undecided": 0}
        assert (await http.get("/api/nodes/0x00")).status_code == 404
        overview = (await http.get("/api/overview")).json()
        assert (overview["num_blocks"], overview["counts"]["sessions"]) == (BLOCKS, 7)


async def test_what_has_not_changed_is_not_sent_again() -> None:
    world = FakeNetwork.of_thirds()
    async with looking(world) as http:
        first = await http.get("/api/disputes")
        tag = first.headers["etag"]
        again = await http.get("/api/disputes", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        world.convict(1)
        await until(http, "/api/disputes", '"faulty"')
        changed = await http.get("/api/disputes", headers={"If-None-Match": tag})
        assert changed.status_code == 200


async def test_the_stream_says_which_lists_are_new_and_only_when_they_are() -> None:
    world = FakeNetwork.of_thirds()
    async with looking(world) as http:
        await until(http, "/api/overview", '"serving":6')
        stream = events(http)
        before = await anext(stream)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await anext(stream)
        await stream.aclose()
        stream = events(http)
        assert await anext(stream) == before
        world.convict(2)
        async with asyncio.timeout(5):
            after = await anext(stream)
            while after["topics"]["disputes"] == before["topics"]["disputes"]:  # type: ignore[index]
                after = await anext(stream)
        assert after["run"] == before["run"]
        assert after["topics"]["audits"] == before["topics"]["audits"]  # type: ignore[index]
        await stream.aclose()


async def test_so_many_may_listen_at_once_and_a_seat_that_is_left_is_free_again() -> None:
    seats = Seats(most=3, each=2)
    assert [seats.take(who) for who in "aaabb"] == [True, True, False, True, False]
    seats.leave("a")
    assert seats.take("b")
    assert not seats.take("c")


async def test_one_address_cannot_take_every_seat_of_the_stream() -> None:
    world = FakeNetwork.of_thirds()
    async with looking(world) as http:
        streams = [events(http) for _ in range(16)]
        for stream in streams:
            await anext(stream)
        refused = await http.get("/api/events")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        await streams[0].aclose()
        async with asyncio.timeout(5):
            while True:
                async with http.stream("GET", "/api/events") as answer:
                    if answer.status_code == 200:
                        break
                await asyncio.sleep(0.05)
        for stream in streams[1:]:
            await stream.aclose()


async def test_a_source_out_of_reach_is_told_by_its_code_and_what_was_known_stays() -> None:
    world = FakeNetwork.of_thirds()
    async with looking(world) as http:
        world.trouble = ChainUnreachable("https://rpc.example/v2/secret-key: eth_call unanswered")
        await until(http, "/api/overview", '"fresh":false')
        overview = await http.get("/api/overview")
        assert "secret-key" not in overview.text
        assert ChainUnreachable("").code in overview.text
        assert (await http.get("/api/nodes")).json()["total"] == 6


async def test_every_answer_carries_the_headers() -> None:
    async with looking(FakeNetwork.of_thirds()) as http:
        for path in ("/", "/main.js", "/api/overview", "/api/nodes?limit=0", "/nothing", "/api/openapi.json"):
            headers = (await http.get(path)).headers
            for name, value in HEADERS.items():
                assert headers[name] == value
            assert headers["cache-control"] == "no-cache"


async def test_it_answers_to_its_own_names_only_and_changes_nothing_for_anyone() -> None:
    async with looking(FakeNetwork.of_thirds()) as http:
        assert (await http.get("/api/nodes", headers={"Host": "rebound.example"})).status_code == 400
        assert (await http.get("/api/nodes", headers={"Host": "localhost:8600"})).status_code == 200
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert (await http.request(method, "/api/nodes")).status_code == 405
        assert (await http.post("/api/playground", json={"prompt": "?"})).status_code in (404, 405)
        assert (await http.get("/../app.py")).status_code == 404


async def test_what_is_larger_than_a_question_or_does_not_say_how_large_it_is_is_not_read() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"{"

    async with looking(FakeNetwork.of_thirds(), gateway(["data: [DONE]"])) as http:
        assert (await http.post("/api/playground", json={"prompt": "x" * 10_000})).status_code == 413
        assert (await http.post("/api/playground", content=endless())).status_code == 413


async def test_it_is_healthy_while_it_looks_and_not_after_its_watch_died() -> None:
    world = FakeNetwork.of_thirds()
    async with looking(world) as http:
        assert (await http.get("/healthz")).json() == {"ok": True}
        world.trouble = ZeroDivisionError()
        await until(http, "/healthz", "false")
        assert (await http.get("/healthz")).status_code == 503


# The playground


def gateway(lines: list[str], *, status: int = 200, seen: list[httpx.Request] | None = None) -> Playground:
    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        route = f"swarm; {HOP}[0:10]; {account(1)}[10:30]"
        return httpx.Response(status, headers={ROUTE_HEADER: route}, text="".join(f"{line}\n\n" for line in lines))

    def price_of(node: Address, span: Span) -> int | None:
        return 10**12 * len(span) if node in (HOP, account(1)) else None

    return Playground("http://gateway/v1", "sk-1", "m", price_of=price_of, transport=httpx.MockTransport(answer))


async def asked(playground: Playground) -> list[tuple[str, object]]:
    return [(told.name, told.data) async for told in playground.ask("x" * 1000)]


async def test_the_playground_shows_route_text_and_cost_and_asks_for_few_tokens_with_the_operators_key() -> None:
    seen: list[httpx.Request] = []
    lines = [
        'data: {"choices": [{"delta": {"role": "assistant"}}]}',
        'data: {"choices": [{"delta": {"content": "A ro"}}], "usage": null}',
        ": a comment",
        'data: {"choices": [{"delta": {"content": "se"}}]}',
        'data: {"choices": [], "usage": {"completion_tokens": 2, "prompt_tokens": 5, "cost": "0.00021"}}',
        "data: [DONE]",
        "data: not read any more",
    ]
    told = await asked(gateway(lines, seen=seen))
    hops = [{"account": HOP, "start": 0, "end": 10}, {"account": account(1), "start": 10, "end": 30}]
    assert told == [
        ("route", {"where": "swarm", "hops": hops, "price_per_token": "0.00003"}),
        ("text", "A ro"),
        ("text", "se"),
        ("cost", {"tokens": 2, "cost": "0.00021"}),
        ("done", None),
    ]
    body = json.loads(seen[0].content)
    assert (body["max_tokens"], len(body["messages"][0]["content"])) == (MOST_TOKENS, 500)
    assert seen[0].headers["authorization"] == "Bearer sk-1"
    assert seen[0].url == "http://gateway/v1/chat/completions"


@pytest.mark.parametrize("line", ["data: {", "data: [1]", 'data: {"choices": 1}', "data: " + "x" * 200_000])
async def test_a_gateway_that_talks_nonsense_is_told_to_have_failed(line: str) -> None:
    assert (await asked(gateway([line])))[-1] == ("failed", "the gateway does not answer")


async def test_a_gateways_refusal_is_told_by_its_status_and_not_by_its_words() -> None:
    assert await asked(gateway(["<script>"], status=402)) == [("failed", "the gateway says 402 Payment Required")]


async def test_other_peoples_pages_cannot_spend_the_operators_money_and_few_may_ask_at_once() -> None:
    playground = gateway(["data: [DONE]"])
    async with looking(FakeNetwork.of_thirds(), playground) as http:
        question = {"prompt": "?"}
        elsewhere = await http.post("/api/playground", json=question, headers={"Sec-Fetch-Site": "cross-site"})
        assert elsewhere.status_code == 403
        form = await http.post("/api/playground", content=json.dumps(question), headers={"Content-Type": "text/plain"})
        assert form.status_code == 422
        assert "event: done" in (await http.post("/api/playground", json=question)).text
        for _ in range(AT_ONCE):
            assert playground.begin()
        assert (await http.post("/api/playground", json=question)).status_code == 429
        playground.end()
        assert (await http.post("/api/playground", json=question)).status_code == 200


async def test_the_playground_understands_corollas_own_gateway() -> None:
    transport = httpx.ASGITransport(create_app(ScriptedBackend()))
    told = await asked(Playground("http://gateway", None, SCRIPTED, transport=transport))
    assert told == [
        ("route", {"where": "script", "hops": [], "price_per_token": None}),
        ("text", "Hello"),
        ("text", ", world"),
        ("cost", {"tokens": 2, "cost": nectar_to_text((PROMPT_TOKENS + 2) * PRICE)}),
        ("done", None),
    ]
    other = await asked(Playground("http://gateway", None, "another", transport=transport))
    assert other == [("failed", "the gateway says 404 Not Found")]
