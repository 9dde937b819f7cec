"""Rows under receipts: kept in bounded space, oldest out first, found again after a crash, never a session's end."""

from __future__ import annotations

import errno
import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest
from books import NOW

from corolla_core.protocol.errors import OpeningUnavailable
from corolla_core.protocol.ids import Hash32, SessionId
from corolla_core.protocol.reordering import Reordering
from corolla_core.store.kept_rows import Place, RowIndex
from corolla_core.store.store import Store
from corolla_node.archive import Archive, ArchivedRows

ROW = 100


class Clock:
    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def rows(number: int, count: int = 4) -> ArchivedRows:
    def side(name: str) -> tuple[bytes, ...]:
        return tuple(sha256(f"{number}{name}{at}".encode()).digest() * 4 for at in range(count))

    receipt = Hash32(number.to_bytes(32, "big"))
    order = tuple(Reordering(8 * number + at, (1, 0)) for at in range(number % 3))
    return ArchivedRows(receipt, SessionId(b"s" * 16), 8 * number, "float32", 2, side("in"), side("out"), order)


def keep(archive: Archive, *numbers: int) -> dict[int, Place]:
    places = {}
    for number in numbers:
        place = archive.keep(rows(number))
        assert place is not None
        places[number] = place
    return places


def opens(archive: Archive, number: int, place: Place) -> bool:
    try:
        return archive.read(rows(number).receipt, place) == rows(number)
    except OpeningUnavailable:
        return False


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_rows_come_back_as_they_went(tmp_path: Path, clock: Clock) -> None:
    archive = Archive(tmp_path, clock=clock)
    places = keep(archive, 1, 2, 3)
    assert all(opens(archive, number, place) for number, place in places.items())
    assert archive.recent(rows(2).receipt) == places[2]
    assert archive.used == sum(place.size for place in places.values())
    (file,) = tmp_path.glob("*.rows")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_oldest_go_when_the_space_is_used_up(tmp_path: Path, clock: Clock) -> None:
    limit = 20_000
    archive = Archive(tmp_path, limit=limit, clock=clock)
    places = keep(archive, *range(60))
    assert archive.used <= limit
    assert sum(path.stat().st_size for path in tmp_path.glob("*.rows")) == archive.used
    kept = [number for number, place in places.items() if opens(archive, number, place)]
    assert kept == list(range(60 - len(kept), 60))
    assert len(kept) > 10
    assert archive.first_segment == min(places[number].segment for number in kept)


def test_rows_go_when_the_window_has_passed(tmp_path: Path, clock: Clock) -> None:
    archive = Archive(tmp_path, window=7200, clock=clock)
    old = keep(archive, 1)[1]
    clock.now += 3600
    young = keep(archive, 2)[2]
    clock.now += 3700
    archive.expire()
    assert (opens(archive, 1, old), opens(archive, 2, young)) == (False, True)


def test_disputed_rows_outlive_the_rest(tmp_path: Path, clock: Clock) -> None:
    archive = Archive(tmp_path, limit=20_000, clock=clock)
    place = keep(archive, 0)[0]
    archive.pin(rows(0).receipt, place)
    keep(archive, *range(1, 60))
    again = Archive(tmp_path, limit=20_000, clock=clock)
    assert opens(again, 0, place)
    again.unpin(rows(0).receipt)
    assert not opens(again, 0, place)


def test_a_torn_tail_is_dropped_and_what_was_not_noted_is_found(tmp_path: Path, clock: Clock) -> None:
    first = Archive(tmp_path, clock=clock)
    places = keep(first, 1, 2, 3, 4)
    path = next(tmp_path.glob("*.rows"))
    os.truncate(path, places[4].end - 5)
    with Store.open(tmp_path / "books.db") as store:
        index = RowIndex(store)
        index.note([(rows(1).receipt, places[1])])
        again = Archive(tmp_path, clock=clock)
        index.note(again.recover(index.last()))
        found = [index.place(rows(number).receipt) for number in (1, 2, 3, 4)]
    assert found == [places[1], places[2], places[3], None]
    assert path.stat().st_size == places[3].end
    fresh = keep(again, 5)[5]
    assert fresh.segment > places[3].segment
    assert all(opens(again, number, places[number]) for number in (1, 2, 3))


def test_segments_are_not_numbered_twice_even_when_all_are_gone(tmp_path: Path, clock: Clock) -> None:
    archive = Archive(tmp_path, clock=clock)
    assert archive.recover(Place(41, 0, 10)) == []
    assert keep(archive, 1)[1].segment == 42


@pytest.mark.parametrize("at", [0, 5, 40, 90, 300, -1])
def test_a_flipped_bit_is_noticed(tmp_path: Path, clock: Clock, at: int) -> None:
    archive = Archive(tmp_path, clock=clock)
    place = keep(archive, 1)[1]
    path = next(tmp_path.glob("*.rows"))
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(OpeningUnavailable) as refused:
        archive.read(rows(1).receipt, place)
    assert refused.value.reason == "lost"


def test_a_receipt_is_not_opened_with_another_ones_rows(tmp_path: Path, clock: Clock) -> None:
    archive = Archive(tmp_path, clock=clock)
    places = keep(archive, 1, 2)
    assert not opens(archive, 1, places[2])
    with pytest.raises(OpeningUnavailable) as refused:
        archive.read(rows(3).receipt, None)
    assert refused.value.reason == "unknown"


class FullDisk(Archive):
    """A disk that is full for the next `full` writes."""

    full = 0
    error = errno.ENOSPC

    def _append(self, record: bytes) -> Place:
        if self.full:
            self.full -= 1
            raise OSError(self.error, os.strerror(self.error))
        return super()._append(record)


def test_a_full_disk_loses_the_oldest_rows(tmp_path: Path, clock: Clock) -> None:
    disk = FullDisk(tmp_path, limit=20_000, clock=clock)
    places = keep(disk, *range(5))
    disk.full = 1
    places |= keep(disk, 5)
    assert [opens(disk, number, place) for number, place in places.items()] == [False, True, True, True, True, True]


def test_a_disk_that_takes_nothing_raises_nothing(tmp_path: Path, clock: Clock) -> None:
    disk = FullDisk(tmp_path, limit=20_000, clock=clock)
    keep(disk, *range(5))
    disk.full = 1000
    assert disk.keep(rows(6)) is None
    disk.full = 0
    assert opens(disk, 7, keep(disk, 7)[7])


def test_a_disk_that_fails_otherwise_keeps_what_it_has(tmp_path: Path, clock: Clock) -> None:
    disk = FullDisk(tmp_path, limit=20_000, clock=clock)
    places = keep(disk, *range(5))
    disk.full, disk.error = 1, errno.EIO
    assert disk.keep(rows(6)) is None
    assert all(opens(disk, number, place) for number, place in places.items())


def test_an_empty_segment_is_dropped_like_any_other(tmp_path: Path, clock: Clock) -> None:
    place = keep(Archive(tmp_path, clock=clock), 1)[1]
    os.truncate(tmp_path / f"{place.segment:010}.rows", 3)
    archive = Archive(tmp_path, window=60, clock=lambda: clock.now + 10**9)
    assert archive.recover(None) == []
    archive.expire()
    assert list(tmp_path.glob("*.rows")) == []


def test_rows_larger_than_the_space_are_not_kept(tmp_path: Path, clock: Clock) -> None:
    archive = Archive(tmp_path, limit=500, clock=clock)
    assert archive.keep(rows(1)) is None
    assert archive.used == 0
