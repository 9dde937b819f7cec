"""Stopping a devnet that an earlier process left running. Imports nothing heavy."""

from __future__ import annotations

import asyncio
from pathlib import Path

from corolla.devnet.process import stop_recorded
from corolla.devnet.state import DevnetState

NODE_GRACE = 25.0
OTHERS_GRACE = 5.0


async def stop_devnet(folder: Path) -> list[str]:
    """Let the nodes drain and redeem, then stop the rest; the names of what was still running."""
    state = DevnetState.load(folder)
    if state is None:
        return []
    running = state.running()
    nodes = {node.name for node in state.nodes}
    async with asyncio.TaskGroup() as stops:
        for child in running:
            if child.name in nodes:
                stops.create_task(stop_recorded(child, grace=NODE_GRACE))
    async with asyncio.TaskGroup() as stops:
        for child in running:
            if child.name not in nodes:
                stops.create_task(stop_recorded(child, grace=OTHERS_GRACE))
    DevnetState.forget(folder)
    return [child.name for child in running]
