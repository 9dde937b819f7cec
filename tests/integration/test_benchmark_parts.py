"""Parts of the suite on a tiny model: rivals in their processes, a node and its sessions."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.effort import QUICK
from benchmarks.memory import memory
from benchmarks.rivals.rival import RivalUnavailable, rival
from model_zoo import BLOCKS, Zoo
from rich.console import Console

from corolla_core.model.manifest import MANIFEST_FILE, build_manifest
from corolla_core.protocol.span import Span


def has_weights(folder: Path) -> bool:
    return any(folder.glob("*.dat"))


@pytest.mark.anyio
async def test_offloading_makes_the_same_model_slower_and_no_other(zoo: Zoo, tmp_path: Path) -> None:
    folder, kept = zoo.checkpoint("llama").folder, tmp_path / "kept"
    async with (
        rival("benchmarks.rivals.plain", folder) as plain,
        rival("benchmarks.rivals.plain", folder, str(kept)) as offloaded,
    ):
        whole, part = await plain.run([1, 2, 3], 5), await offloaded.run([1, 2, 3], 5)
        assert whole.token_ids == part.token_ids == (await plain.run([1, 2, 3], 5)).token_ids
        assert len(whole.token_ids) == 5
        assert min(whole.prefill, whole.decode, part.decode) > 0
        assert (await offloaded.run([9], 2)).token_ids == (await plain.run([9], 2)).token_ids
    assert has_weights(kept)


@pytest.mark.anyio
async def test_a_rival_that_cannot_start_says_so(tmp_path: Path) -> None:
    with pytest.raises(RivalUnavailable):
        async with rival("benchmarks.rivals.plain", str(tmp_path / "nothing")):
            pass


@pytest.mark.anyio
async def test_a_node_sets_aside_what_its_sessions_take(zoo: Zoo) -> None:
    checkpoint = zoo.checkpoint("llama")
    (Path(checkpoint.folder) / MANIFEST_FILE).write_text(build_manifest(checkpoint).to_json())
    span = Span(0, BLOCKS)
    idle, session, _left = await memory(
        Path(checkpoint.folder), QUICK, Console(stderr=True), span=span, sessions=2, positions=8
    )
    assert idle.value > 50
    assert session.baseline is not None
    assert session.baseline > 0
