"""What is signed of reorderings is what was done, can be opened as nothing else, and suffices to compute it again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from beam_sessions import Move, beam_session
from books import receipt as any_receipt
from hypothesis import given, settings
from hypothesis import strategies as st
from signed_sessions import HIDDEN, signer, tiny_llama

from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.manifest import Manifest, build_manifest
from corolla_core.model.replay import open_rows, replay
from corolla_core.protocol.errors import InvalidProof
from corolla_core.protocol.opening import Side
from corolla_core.protocol.receipt import Receipt, WireDtype, rows_root
from corolla_core.protocol.reordering import Reordering, check_order, order_root
from corolla_core.protocol.span import Span
from corolla_core.protocol.transcript import Transcript
from corolla_core.swarm.frame import decode, encode
from corolla_core.swarm.messages import Opening, Tensor
from corolla_core.swarm.openings import BOTH, check_opening

SPAN, NODE = Span(1, 3), signer("node")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[BlockRange, Manifest]:
    checkpoint = tiny_llama(tmp_path_factory.mktemp("llama"))
    return load_blocks(checkpoint, SPAN), build_manifest(checkpoint)


@st.composite
def sessions(draw: st.DrawFn) -> tuple[int, list[Move]]:
    """A batch, and steps that continue, reorder or roll back."""
    batch = draw(st.integers(1, 3))
    orders = st.none() | st.lists(st.integers(0, batch - 1), min_size=batch, max_size=batch).map(tuple)
    moves: list[Move] = []
    end = 0
    for _ in range(draw(st.integers(1, 9))):
        pos = draw(st.just(end) | st.integers(0, end))
        moves.append(Move(pos, draw(st.sampled_from([1, 1, 1, 3])), draw(orders)))
        end = pos + moves[-1].tokens
    return batch, moves


def recomputed(blocks: BlockRange, transcript: Transcript, reorderings: Any) -> torch.Tensor:
    rows = open_rows(transcript.input_rows(), wire="float32", hidden_size=HIDDEN, batch=transcript.batch)
    return replay(blocks, rows, reorderings, entering=torch.float32)


def claimed(transcript: Transcript) -> torch.Tensor:
    return open_rows(transcript.output_rows(), wire="float32", hidden_size=HIDDEN, batch=transcript.batch)


@settings(max_examples=40, deadline=None)
@given(session=sessions(), chunk_tokens=st.integers(1, 5))
def test_a_prefill_between_reorderings_gives_what_was_computed_step_by_step(
    loaded: tuple[BlockRange, Manifest], session: tuple[int, list[Move]], chunk_tokens: int
) -> None:
    blocks, manifest = loaded
    batch, moves = session
    entries = beam_session(NODE, manifest, SPAN, blocks, moves, batch=batch, chunk_tokens=chunk_tokens)
    transcript = Transcript.decode(Transcript(tuple(entries)).encode())
    torch.testing.assert_close(
        recomputed(blocks, transcript, transcript.reorderings), claimed(transcript), rtol=1e-4, atol=1e-5
    )
    places = [each.position for each in transcript.reorderings]
    assert places == sorted(set(places))


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ([Move(0, 4), Move(4, 1, (1, 0))], [Reordering(4, (1, 0))]),
        # Rolled back behind two reorderings: what they did to the positions before stays done.
        ([Move(0, 4), Move(4, 1, (1, 1)), Move(5, 1, (1, 0)), Move(2, 3)], [Reordering(2, (1, 1))]),
        ([Move(0, 4), Move(4, 1, (0, 0)), Move(4, 2, (1, 0))], [Reordering(4, (0, 0))]),
        ([Move(0, 4), Move(4, 1, (1, 0)), Move(3, 1, (1, 0)), Move(4, 1)], [Reordering(3, (0, 1))]),
        ([Move(0, 4), Move(4, 1, (1, 0)), Move(0, 3)], []),
    ],
)
def test_what_was_rolled_back_has_reordered_what_was_not(
    loaded: tuple[BlockRange, Manifest], moves: list[Move], expected: list[Reordering]
) -> None:
    blocks, manifest = loaded
    transcript = Transcript(tuple(beam_session(NODE, manifest, SPAN, blocks, moves, batch=2)))
    assert list(transcript.reorderings) == expected
    honest = claimed(transcript)
    torch.testing.assert_close(recomputed(blocks, transcript, expected), honest, rtol=1e-4, atol=1e-5)
    if any(each.rows != (0, 1) for each in expected):
        assert not torch.allclose(recomputed(blocks, transcript, []), honest, rtol=1e-2, atol=1e-2)


def signed(batch: int, positions: int, reorderings: list[Reordering]) -> Receipt:
    made = any_receipt(start=5, count=positions).receipt
    return replace(made, batch=batch, order_root=order_root(reorderings))


@st.composite
def orders(draw: st.DrawFn) -> tuple[Receipt, list[Reordering]]:
    batch, positions = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    at = sorted(draw(st.sets(st.integers(5, 4 + positions), min_size=1)))
    rows = st.lists(st.integers(0, batch - 1), min_size=batch, max_size=batch).map(tuple)
    made = [Reordering(position, draw(rows)) for position in at]
    return signed(batch, positions, made), made


@given(orders(), st.data())
def test_no_other_reorderings_pass_for_those_signed_for(
    order: tuple[Receipt, list[Reordering]], data: st.DataObject
) -> None:
    receipt, made = order
    check_order(receipt, made)
    index = data.draw(st.integers(0, len(made) - 1))
    one, others = made[index], [*made[:index], *made[index + 1 :]]
    changed = data.draw(st.integers(0, receipt.batch))
    wrong = [others, [*made, one], [*made[::-1], one], [*others, replace(one, rows=(*one.rows[1:], changed))]]
    for forged in wrong:
        if forged != made:
            with pytest.raises(InvalidProof):
                check_order(receipt, forged)


@pytest.mark.parametrize(
    "hostile",
    [
        [Reordering(4, (0, 1))],
        [Reordering(8, (0, 1))],
        [Reordering(2**63, (0, 1))],
        [Reordering(-1, (0, 1))],
        [Reordering(5, (0,))],
        [Reordering(5, (0, 1, 0))],
        [Reordering(5, (0, 2))],
        [Reordering(5, (0, -1))],
        [Reordering(5, ())],
        [Reordering(6, (0, 1)), Reordering(5, (0, 1))],
        [Reordering(5, (0, 1)), Reordering(5, (0, 1))],
    ],
)
def test_what_no_node_can_do_is_refused_even_where_it_was_signed(hostile: list[Reordering]) -> None:
    """The receipt has positions 5 to 7 of two sequences."""
    if all(number >= 0 for each in hostile for number in (each.position, *each.rows)):
        receipt = signed(2, 3, hostile)
    else:
        receipt = signed(2, 3, [])
    with pytest.raises(InvalidProof):
        check_order(receipt, hostile)


def test_an_opening_shows_the_reorderings_signed_for_in_the_dtype_and_batch_signed_for() -> None:
    made = [Reordering(5, (1, 0)), Reordering(7, (1, 1))]
    rows = [bytes([at]) * 16 for at in range(3)]  # two sequences of two float32 each
    root = rows_root(any_receipt().receipt.session_id, 5, rows)
    receipt = replace(signed(2, 3, made), in_root=root, out_root=root)
    payload = b"".join(rows) * 2
    opening = Opening(receipt.hash(), [], Tensor("float32", [2, 3, 2, 2]), made)
    arrived, data = decode(memoryview(b"".join(encode(opening, payload))))
    assert isinstance(arrived, Opening)
    found = check_opening(receipt, arrived, data, positions=(), sides=BOTH)
    assert found.reorderings == tuple(made)
    assert bytes(found.rows[Side.INPUTS]) == b"".join(rows)
    for reorderings, tensor in (
        ([], opening.tensor),
        (made[:1], opening.tensor),
        (made, Tensor("float32", [2, 3, 1, 4])),
        (made, Tensor("bfloat16", [2, 3, 2, 4])),
    ):
        other = Opening(opening.receipt, [], tensor, reorderings)
        with pytest.raises(InvalidProof):
            check_opening(receipt, other, memoryview(payload), positions=(), sides=BOTH)
    with pytest.raises(InvalidProof):
        check_opening(replace(receipt, wire=WireDtype.FLOAT16), opening, memoryview(payload), positions=(), sides=BOTH)
