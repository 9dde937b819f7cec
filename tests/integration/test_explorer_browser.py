"""The explorer in a real browser, its network made up: what people see, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from chromium import chromium
from explorer_world import (
    BLOCKS,
    MODEL,
    THIRDS,
    FakeNetwork,
    account,
    audited,
    explorer,
    free_port,
    served,
)
from playwright.async_api import Browser, Page, expect

from corolla_validator.explorer.models import PlaygroundView
from corolla_validator.explorer.overview import About
from corolla_validator.explorer.playground import ROUTE_HEADER, Playground

pytestmark = pytest.mark.anyio
WITHIN = 5_000
"""ms: what people are promised."""
SECTIONS = ("overview", "sessions", "audits", "justice", "earnings", "playground")
ABOUT = About("petals", 1337, "smollm2-135m-instruct", MODEL.hex(), BLOCKS, "https://blocks.example/tx/")
AA = {
    "resultTypes": ["violations"],
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


@asynccontextmanager
async def page_of(browser: Browser, url: str, **context: Any) -> AsyncIterator[Page]:
    """The explorer's page, all of it there. In the end: it asked nobody else for anything, and nothing went wrong."""
    opened = await browser.new_context(**context)
    asked: list[str] = []
    wrong: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("weberror", lambda error: wrong.append(str(error.error)))
    page = await opened.new_page()
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    await page.goto(url)
    await expect(page.locator("#nodes tbody tr").first).to_be_visible()
    yield page
    await opened.close()
    assert asked
    assert [each for each in asked if not each.startswith(url + "/")] == []
    assert wrong == []


@asynccontextmanager
async def looking(browser: Browser, world: FakeNetwork, **context: Any) -> AsyncIterator[Page]:
    async with served(explorer(world, about=ABOUT)) as url, page_of(browser, url, **context) as page:
        yield page


def troubled() -> FakeNetwork:
    """With all that there is to show: dead nodes, a gap, a slashed cheater, failed audits."""
    world = FakeNetwork.of_thirds()
    world.dead = {account(1), account(4)}
    world.convict(2)
    world.audits += tuple(audited(10 + n, 2, failed=True, session=5 + n) for n in range(3))
    return world


def row(page: Page, number: int) -> Any:
    return page.locator(f'#nodes tbody tr[data-key="{account(number)}"]')


async def test_blocks_turn_red_within_five_seconds_when_the_last_node_that_serves_them_dies(browser: Browser) -> None:
    world = FakeNetwork.of_thirds()
    async with looking(browser, world) as page:
        await expect(page.locator("#gaps")).to_have_text("All 30 blocks are served")
        await expect(page.locator('.heat .bar[data-state="serving"]')).to_have_count(6)
        world.dead = {account(1), account(4)}
        died = time.monotonic()
        await expect(page.locator('.cell[data-servers="0"]')).to_have_count(10, timeout=WITHIN)
        print(f"red {time.monotonic() - died:.1f} s after the nodes died")
        await expect(page.locator("#gaps")).to_have_text("Blocks 10–19: served by nobody")
        await expect(row(page, 1).locator(".pill").first).to_have_text("down")
        red = await page.locator('.cell[data-servers="0"]').first.evaluate("e => getComputedStyle(e).backgroundColor")
        assert red == "rgb(220, 38, 38)"
        world.dead = set()
        await expect(page.locator("#gaps")).to_have_text("All 30 blocks are served", timeout=WITHIN)


async def test_a_slashed_cheater_is_seen_within_five_seconds_with_the_transactions_that_did_it(
    browser: Browser,
) -> None:
    world = FakeNetwork.of_thirds()
    async with looking(browser, world) as page:
        await expect(row(page, 2).locator(".pill").first).to_have_text("serving")
        world.convict(2)
        slashed = time.monotonic()
        await expect(row(page, 2).locator(".pill")).to_have_text(["expelled", "slashed", "passed"], timeout=WITHIN)
        print(f"seen {time.monotonic() - slashed:.1f} s after the block")
        await page.click('nav a[href="#justice"]')
        links = await page.locator("#disputes tbody a").evaluate_all("all => all.map(a => a.href)")
        dispute = [each for each in world.events if type(each.event).__name__ in ("DisputeOpened", "DisputeConcluded")]
        assert links == [f"https://blocks.example/tx/0x{each.tx_hash.hex()}" for each in dispute]
        await expect(page.locator("#penalties tbody tr")).to_contain_text("jury, dispute 1")


async def test_the_page_takes_up_again_when_the_server_comes_back(browser: Browser) -> None:
    world, port = FakeNetwork.of_thirds(), free_port()
    async with served(explorer(world), port=port) as url:
        pages = page_of(browser, url)
        page = await pages.__aenter__()
        await expect(page.locator("#live")).to_have_text("live")
    await expect(page.locator("#live")).to_have_text("reconnecting")
    world.convict(2)
    async with served(explorer(world), port=port):
        await expect(page.locator("#live")).to_have_text("live", timeout=WITHIN)
        await expect(row(page, 2).locator(".pill").first).to_have_text("expelled", timeout=WITHIN)
        await pages.__aexit__(None, None, None)


async def test_nothing_scrolls_sideways_on_a_phone(browser: Browser) -> None:
    async with looking(browser, troubled(), viewport={"width": 360, "height": 740}) as page:
        for section in SECTIONS:
            await page.click(f'nav a[href="#{section}"]')
            await expect(page.locator(f"#{section}")).to_be_visible()
            await asyncio.sleep(0.2)  # its list comes
            assert await page.evaluate("document.documentElement.scrollWidth") <= 360, section


async def test_everything_is_reached_by_keyboard_and_news_do_not_take_the_focus_away(browser: Browser) -> None:
    world = FakeNetwork.of_thirds()
    async with looking(browser, world) as page:
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#main")).to_be_focused()
        await page.keyboard.press("Tab")  # the first node in the map
        first = page.locator(f'.heat li[data-account="{account(0)}"] button')
        await expect(first).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator("#details")).to_contain_text("10.0.0.0:31330")
        await page.keyboard.press("Escape")
        await expect(page.locator("#details")).to_be_hidden()
        await expect(first).to_be_focused()
        world.dead = {account(0)}
        await expect(page.locator(f'.heat li[data-account="{account(0)}"]')).to_have_attribute(
            "data-state", "down", timeout=WITHIN
        )
        await expect(first).to_be_focused()
        await page.locator('nav a[href="#audits"]').focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#audits-list tbody tr")).to_have_count(3)
        await expect(page.locator('nav a[aria-current="page"]')).to_have_text("Audits")


async def test_it_is_dark_where_the_system_is_and_what_is_chosen_here_stays(browser: Browser) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light, dark = "rgb(251, 248, 249)", "rgb(23, 19, 21)"
    async with looking(browser, FakeNetwork.of_thirds(), color_scheme="dark") as page:
        assert await page.evaluate(ground) == dark
        await page.emulate_media(color_scheme="light")
        assert await page.evaluate(ground) == light
        await page.click("#theme")
        assert await page.evaluate(ground) == dark
        await page.reload()
        await expect(page.locator("#theme")).to_have_text("Light")
        assert await page.evaluate(ground) == dark


@pytest.mark.parametrize(("scheme", "width"), [("light", 1180), ("dark", 360)])
async def test_axe_finds_nothing_against_wcag_aa(browser: Browser, scheme: str, width: int) -> None:
    told = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "reduced_motion": "reduce"}
    async with looking(browser, troubled(), **told) as page:
        await expect(page.locator('.heat li[data-state="down"]')).to_have_count(2, timeout=WITHIN)
        for section in SECTIONS:
            await page.click(f'nav a[href="#{section}"]')
            await expect(page.locator(f"#{section}")).to_be_visible()
            await asyncio.sleep(0.2)  # its list comes
        await page.evaluate("for (const each of document.querySelectorAll('section')) each.hidden = false")
        found = await Axe().run(page, options=AA)
        assert found.violations_count == 0, found.generate_snapshot()
        await page.click('nav a[href="#overview"]')
        await row(page, 2).locator("button").click()
        await expect(page.locator("#details")).to_contain_text("expelled")
        found = await Axe().run(page, options=AA)
        assert found.violations_count == 0, found.generate_snapshot()


async def test_what_peers_say_is_text_whatever_it_says(browser: Browser) -> None:
    world, evil = FakeNetwork.of_thirds(), "<img src=x onerror=document.title='owned'>"
    world.announce(3, THIRDS[0], host=evil, peer_id="</dd><script>alert(1)</script>")
    world.convict(1, uri="javascript:alert(1)")
    async with looking(browser, world) as page:
        await row(page, 3).locator("button").click()
        await expect(page.locator("#details")).to_contain_text(evil)
        await expect(page.locator("#details")).to_contain_text("<script>alert(1)</script>")
        assert await page.title() == "Corolla explorer"
        assert await page.locator("main img, dialog img, body script").count() == 0
        assert await page.locator('a[href^="javascript"]').count() == 0


async def test_the_playground_shows_the_route_and_the_price_with_the_text(browser: Browser) -> None:
    chunks = [
        'data: {"choices": [{"delta": {"content": "Roses <b>and</b> "}}]}',
        'data: {"choices": [{"delta": {"content": "thyme."}}]}',
        'data: {"choices": [], "usage": {"completion_tokens": 2, "cost": "0.00021"}}',
        "data: [DONE]",
    ]
    go_on = asyncio.Event()

    class Slow(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for number, chunk in enumerate(chunks):
                if number == 1:
                    await go_on.wait()
                yield f"{chunk}\n\n".encode()

    async def gateway(_request: httpx.Request) -> httpx.Response:
        route = f"swarm; {account(0)}[0:10]; {account(1)}[10:30]"
        return httpx.Response(200, headers={ROUTE_HEADER: route}, stream=Slow())

    playground = Playground(
        "http://gateway",
        None,
        "m",
        price_of=lambda _n, span: 10**12 * len(span),
        transport=httpx.MockTransport(gateway),
    )
    about = About("petals", 1337, "m", MODEL.hex(), BLOCKS, playground=PlaygroundView(available=True, most_tokens=64))
    app = explorer(FakeNetwork.of_thirds(), about=about, playground=playground)
    async with served(app) as url, page_of(browser, url) as page:
        await page.click('nav a[href="#playground"]')
        await page.fill("#prompt", "What grows?")
        await page.click("#play button")
        await expect(page.locator(".answer")).to_have_text("Roses <b>and</b> ")
        await expect(page.locator(".route li")).to_have_count(2)
        await expect(page.locator("#price")).to_have_text("about 0.00003 NECT so far, 0.00003 a token")
        go_on.set()
        await expect(page.locator(".answer")).to_have_text("Roses <b>and</b> thyme.")
        await expect(page.locator("#price")).to_contain_text("2 tokens for 0.00021 NECT")
    await playground.close()


async def test_without_a_gateway_the_playground_says_how_to_get_one(browser: Browser) -> None:
    async with looking(browser, FakeNetwork.of_thirds()) as page:
        await page.click('nav a[href="#playground"]')
        await expect(page.locator("#play")).to_contain_text("validator explorer --gateway")
