"""`validator explorer` as a process over the books of a devnet's validator, and its page in a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chromium import chromium
from playwright.async_api import Locator, Page

from corolla.devnet.devnet import Devnet
from corolla.devnet.node import installed
from corolla.devnet.process import Child
from corolla.devnet.validator import DevnetValidator
from corolla_core.protocol.ids import Address

START_SECONDS = 120.0


@asynccontextmanager
async def explorer_page(devnet: Devnet, validator: DevnetValidator, folder: Path) -> AsyncIterator[Page]:
    command = [
        installed("validator"),
        "explorer",
        f"--model={devnet.plan.model}",
        f"--network={devnet.network_file}",
        "--port=0",
        "--json",
    ]
    explorer = Child.start("explorer", command, folder=folder, env=validator.environ)
    try:
        ready = await explorer.wait_event("event", "ready", within=START_SECONDS)
        async with chromium() as browser:
            page = await browser.new_page()
            await page.goto(ready["url"])
            yield page
        await explorer.stop(grace=10.0)
        assert explorer.returncode == 0
    finally:
        await explorer.stop(grace=10.0)


def row(page: Page, account: Address) -> Locator:
    """Of the table of nodes."""
    return page.locator(f'#nodes tbody tr[data-key="{account}"]')
