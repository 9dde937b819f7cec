"""Many sessions on a real node in its own process, for a few seconds; `python -m benchmarks.soak` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.soak import run
from model_zoo import BLOCKS, Zoo

from corolla_core.model.manifest import MANIFEST_FILE, build_manifest
from corolla_core.protocol.span import Span


@pytest.mark.anyio
async def test_sixty_four_sessions_lose_no_token_get_no_wrong_one_and_leave_nothing_behind(zoo: Zoo) -> None:
    checkpoint = zoo.checkpoint("llama")
    (Path(checkpoint.folder) / MANIFEST_FILE).write_text(build_manifest(checkpoint).to_json())
    seen = await run(checkpoint.folder, Span(0, BLOCKS), customers=64, seconds=6, longest=64, kv_share=0.8)
    assert not seen.problems
    assert seen.tokens > 64
    assert seen.worst > 0  # some were compared
    assert seen.refused > 0  # and memory was short
