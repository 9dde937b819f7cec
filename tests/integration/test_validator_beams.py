"""Several sequences are judged like one: a beam search of an honest node passes, and no liar gets away as one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from beam_sessions import beam_search, beam_session, resigned
from signed_sessions import HIDDEN, inputs, session, strict
from test_validator_rounds import CHEAT, HONEST, SPAN, World, checkpoint, manifest
from torch import Tensor

from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.errors import InvalidProof, NotCalibrated, OutOfCapacity
from corolla_core.protocol.ids import ZERO_HASH
from corolla_core.protocol.receipt import WireDtype
from corolla_core.protocol.transcript import Entry, Transcript
from corolla_core.protocol.verdict import Outcome
from corolla_core.store.store import Store
from corolla_validator.auditor import Auditor

__all__ = ["checkpoint", "manifest"]
pytestmark = pytest.mark.anyio
BEAMS = 3
PARENTS = [(0, 0, 0), (0, 1, 1), (2, 0, 1), (0, 1, 2), (1, 1, 0), (2, 2, 2), (0, 2, 1), (1, 0, 0)] * 3
MOVES = beam_search(9, PARENTS)


@pytest.fixture
async def world(checkpoint: Checkpoint, manifest: Manifest, tmp_path: Path) -> AsyncIterator[World]:
    async with Store.open(tmp_path / "books.db") as store:
        yield World(checkpoint, manifest, store, tmp_path / "evidence")


def beams(world: World, *, lies: bool = False, obeys: bool = True, seed: int = 1) -> list[Entry]:
    return beam_session(
        CHEAT if lies or not obeys else HONEST,
        world.manifest,
        SPAN,
        world.blocks,
        MOVES,
        batch=BEAMS,
        seed=seed,
        t_out=int(world.swarm.now * 1000),
        obeys=obeys,
        cheat=_a_little_off if lies else None,
    )


def _a_little_off(outputs: Tensor) -> Tensor:
    """The last beam only, by a thousandth."""
    wrong = outputs.clone()
    wrong[BEAMS - 1] += torch.linspace(-1e-3, 1e-3, HIDDEN)
    return wrong


async def test_a_beam_search_of_an_honest_node_passes_and_a_lie_about_one_beam_fails(world: World) -> None:
    world.swarm.entries[HONEST.address] += beams(world)
    world.swarm.entries[CHEAT.address] += beams(world, lies=True)
    await world.pass_rounds()
    assert sorted(world.outcomes()) == sorted([(HONEST.address, "passed"), (CHEAT.address, "failed")])
    for record in world.books.audits():
        kept = world.evidence.read(record.evidence)
        assert len(kept.reorderings) == len(PARENTS)
        assert world.auditor.judge(kept).verdict == record.verdict


async def test_a_node_that_does_not_reorder_as_it_signs_fails(world: World) -> None:
    world.swarm.entries[CHEAT.address] += beams(world, obeys=False)
    await world.pass_rounds()
    assert world.outcomes() == [(CHEAT.address, "failed")]


async def test_reorderings_other_than_those_signed_for_are_withheld_rows(world: World) -> None:
    honest = beams(world)
    first = honest[1].reorderings[0]
    shown = replace(honest[1], reorderings=(replace(first, rows=(2, 2, 2)), *honest[1].reorderings[1:]))
    with pytest.raises(InvalidProof):
        Transcript((honest[0], shown, *honest[2:]))
    with pytest.raises(InvalidProof):
        Transcript((honest[0], replace(honest[1], reorderings=()), *honest[2:]))


def chain_of(entries: list[Entry], **changes: object) -> Transcript:
    """The same rows under receipts that say something else."""
    made: list[Entry] = []
    for entry in entries:
        before = made[-1].receipt.hash() if made else ZERO_HASH
        made.append(resigned(entry, CHEAT, prev_receipt_hash=before, **changes))
    return Transcript(tuple(made))


async def test_no_claim_about_dtype_or_batch_makes_a_session_one_that_cannot_be_judged(world: World) -> None:
    """An honest node refuses rows of another size, so it never signs for any."""
    one = session(CHEAT, world.manifest, SPAN, inputs(1), world.honest, name="s", t_out=1)
    judge = world.auditor.judge
    assert judge(Transcript(tuple(one))).verdict.outcome is Outcome.PASSED
    for batch in (2, 3, 2**64 - 1):
        assert judge(chain_of(one, batch=batch)).verdict.outcome is Outcome.FAILED
    for wire in (WireDtype.BFLOAT16, WireDtype.FLOAT16):
        with pytest.raises(NotCalibrated):
            judge(chain_of(one, wire=wire))
    assert judge(chain_of(beams(world), batch=BEAMS)).verdict.outcome is Outcome.PASSED


async def test_sequences_that_take_too_much_memory_are_a_typed_error(checkpoint: Checkpoint, world: World) -> None:
    whole = Transcript(tuple(beams(world)))
    calibration = strict(world.manifest, [SPAN])
    auditor = Auditor.of(checkpoint, world.manifest, calibration, most_bytes=100_000)
    with pytest.raises(OutOfCapacity) as refused:
        auditor.judge(whole)
    assert refused.value.free == 100_000 < refused.value.needed
    assert auditor.judge(Transcript(whole.entries[:1])).verdict.outcome is Outcome.UNDECIDED
