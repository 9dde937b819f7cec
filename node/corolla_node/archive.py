"""The rows under a node's receipts, on its disk for as long as an audit may ask for them.

Records are appended to segment files, a new one every hour or when one is full; the oldest goes when its last record is
older than the window, or when the disk's share is used up. A record carries its own checksum: what a crash tore off is
dropped at the next start. A process that is killed has lost nothing, as the system holds what it wrote; a machine that
loses power may have lost the last seconds. Rows are what prompts can be read from: nobody else may read the files.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import msgspec
import structlog

from corolla_core.protocol.errors import OpeningUnavailable
from corolla_core.protocol.ids import Hash32, SessionId
from corolla_core.protocol.reordering import Reordering
from corolla_core.store.kept_rows import Place

_log = structlog.get_logger(__name__)
_MAGIC = b"CRR2"
_HEADER = struct.Struct(">4s32s16sQIBIQI")
_CHECKSUM = struct.Struct(">I")
_DTYPES = ("float32", "bfloat16", "float16", "int8")
_SEGMENT_SECONDS = 3600.0
_SEGMENTS = 16
_RECENT = 4096
_FULL = (errno.ENOSPC, errno.EDQUOT)

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class ArchivedRows:
    """The input and output rows of one receipt, and how its sequences were reordered: a row is what its trees hash,
    every batch row of a position."""

    receipt: Hash32
    session: SessionId
    pos_start: int
    dtype: str
    batch: int
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    reorderings: tuple[Reordering, ...] = ()


class Archive:
    """`keep` is for one thread, everything else for any. A disk that fails loses rows, never the session."""

    def __init__(
        self,
        folder: Path,
        *,
        limit: int = 2 * 2**30,
        window: float = float("inf"),
        owed: float = 0.0,
        clock: Callable[[], float],
    ) -> None:
        """Keeps at most `limit` bytes, and what is younger than `window` seconds. Younger than `owed`, rows may be
        asked for on chain: that they had to go all the same is said in the log, and counted in `lost`."""
        self._folder = folder
        self._limit = limit
        self._window = window
        self._owed = owed
        self._clock = clock
        self._segment_bytes = max(1, limit // _SEGMENTS)
        self._lock = threading.Lock()
        self._recent: OrderedDict[Hash32, Place] = OrderedDict()
        for each in (folder, folder / "pinned"):
            each.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sizes = {number: path.stat().st_size for number, path in _segments(folder)}
        self._written = {number: path.stat().st_mtime for number, path in _segments(folder)}
        self._next = max(self._sizes, default=0) + 1
        self._file: int | None = None
        self._current = 0
        self._began = 0.0
        self.lost = 0
        """bytes of rows that were not kept for as long as they may be asked for on chain"""

    @property
    def used(self) -> int:
        """Bytes on disk, pinned rows apart."""
        with self._lock:
            return sum(self._sizes.values())

    @property
    def first_segment(self) -> int:
        """What is older has been dropped."""
        with self._lock:
            return min(self._sizes, default=self._next)

    def recover(self, after: Place | None) -> list[tuple[Hash32, Place]]:
        """What lies behind the last place that was noted; torn tails are cut off. For the start, before any `keep`."""
        found = []
        if after is not None:
            self._next = max(self._next, after.segment + 1)
        for number in sorted(self._sizes):
            if after is not None and number < after.segment:
                continue
            start = after.end if after is not None and number == after.segment else 0
            end = start
            for rows, place in self._scan(number, start):
                found.append((rows.receipt, place))
                end = place.end
            if end < self._sizes[number]:
                _log.warning("dropped rows that a crash tore off", segment=number, bytes=self._sizes[number] - end)
                os.truncate(self._path(number), end)
                self._sizes[number] = end
        return found

    def keep(self, rows: ArchivedRows) -> Place | None:
        """Where the rows lie now, or None where the disk would not take them."""
        record = _encode(rows)
        if len(record) > self._limit:
            self._lose(len(record), "rows are larger than the space for them", receipt=rows.receipt)
            return None
        with self._lock:
            while True:
                try:
                    place = self._append(record)
                except OSError as error:
                    if error.errno not in _FULL or not self._drop_oldest():
                        self._lose(len(record), "the disk does not take rows", receipt=rows.receipt, error=str(error))
                        return None
                    continue
                self._remember(rows.receipt, place)
                return place

    def recent(self, receipt: Hash32) -> Place | None:
        """The place of what was kept lately, before the store knows it."""
        with self._lock:
            return self._recent.get(receipt)

    def read(self, receipt: Hash32, place: Place | None) -> ArchivedRows:
        """The rows of a receipt, those pinned included. Raises OpeningUnavailable."""
        try:
            raw = self._pinned(receipt).read_bytes()
        except OSError:
            if place is None:
                raise OpeningUnavailable("no rows of this receipt here", receipt=receipt, reason="unknown") from None
            raw = self._read(receipt, place)
        rows = _decode(raw)
        if rows is None or rows.receipt != receipt:
            raise OpeningUnavailable("the disk gave something else back", receipt=receipt, reason="lost")
        return rows

    def pin(self, receipt: Hash32, place: Place) -> None:
        """Keep these rows until `unpin`, whatever else goes: they are disputed. Raises OpeningUnavailable, OSError."""
        if not self._pinned(receipt).exists():
            record = _encode(self.read(receipt, place))
            new = self._pinned(receipt).with_suffix(".new")
            new.touch(mode=0o600)
            new.write_bytes(record)
            new.replace(self._pinned(receipt))

    def unpin(self, receipt: Hash32) -> None:
        self._pinned(receipt).unlink(missing_ok=True)

    def pinned(self) -> set[Hash32]:
        """The receipts whose rows are pinned."""
        names = (path.name for path in (self._folder / "pinned").iterdir() if re.fullmatch(r"[0-9a-f]{64}", path.name))
        return {Hash32(bytes.fromhex(name)) for name in names}

    def expire(self) -> None:
        """Drop the segments whose last record is older than the window."""
        with self._lock:
            while self._sizes:
                oldest = min(self._sizes)
                if self._written[oldest] >= self._clock() - self._window:
                    break
                self._drop(oldest)

    def close(self) -> None:
        with self._lock:
            self._close_segment()

    # With the lock held

    def _append(self, record: bytes) -> Place:
        now = self._clock()
        full = self._sizes.get(self._current, 0) + len(record) > self._segment_bytes
        if self._file is None or full or now - self._began >= _SEGMENT_SECONDS:
            self._begin_segment(now)
        while sum(self._sizes.values()) + len(record) > self._limit and self._drop_oldest():
            if self._file is None:
                self._begin_segment(now)
        assert self._file is not None
        start = self._sizes[self._current]
        try:
            done = 0
            while done < len(record):
                done += os.pwrite(self._file, memoryview(record)[done:], start + done)
        except OSError:
            os.ftruncate(self._file, start)
            raise
        self._sizes[self._current] = start + len(record)
        self._written[self._current] = now
        return Place(self._current, start, len(record))

    def _begin_segment(self, now: float) -> None:
        self._close_segment()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(self._path(self._next), flags, 0o600)
        self._current, self._next, self._began = self._next, self._next + 1, now
        self._sizes[self._current], self._written[self._current] = 0, now

    def _close_segment(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _drop_oldest(self) -> bool:
        """Whether there was something to drop."""
        if not any(self._sizes.values()):
            return False
        oldest = min(self._sizes)
        if self._written[oldest] > self._clock() - self._owed:
            self._lose(self._sizes[oldest], "the space for rows is used up: give `audit_disk` more", segment=oldest)
        self._drop(oldest)
        return True

    def _lose(self, size: int, why: str, **about: object) -> None:
        """A receipt that was signed cannot be opened any more, which costs stake if somebody asks."""
        self.lost += size
        _log.error("rows are lost that may be asked for on chain", why=why, bytes=size, **about)

    def _drop(self, number: int) -> None:
        if number == self._current:
            self._close_segment()
        self._path(number).unlink(missing_ok=True)
        del self._sizes[number], self._written[number]

    def _remember(self, receipt: Hash32, place: Place) -> None:
        self._recent[receipt] = place
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    # Files

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:010}.rows"

    def _pinned(self, receipt: Hash32) -> Path:
        return self._folder / "pinned" / receipt.hex()

    def _read(self, receipt: Hash32, place: Place) -> bytes:
        try:
            with self._path(place.segment).open("rb") as file:
                file.seek(place.start)
                return file.read(place.size)
        except FileNotFoundError:
            raise OpeningUnavailable("these rows are kept no more", receipt=receipt, reason="unknown") from None
        except OSError as error:
            _log.error("kept rows cannot be read", error=str(error))
            raise OpeningUnavailable("the disk fails", receipt=receipt, reason="lost") from None

    def _scan(self, number: int, start: int) -> Iterator[tuple[ArchivedRows, Place]]:
        size = self._sizes[number]
        with self._path(number).open("rb") as file:
            while start + _HEADER.size <= size:
                file.seek(start)
                length = _length(file.read(_HEADER.size))
                if length is None or start + length > size:
                    return
                file.seek(start)
                rows = _decode(file.read(length))
                if rows is None:
                    return
                yield rows, Place(number, start, length)
                start += length


def _segments(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.iterdir():
        if re.fullmatch(r"\d{10}\.rows", path.name):
            yield int(path.stem), path


def _encode(rows: ArchivedRows) -> bytes:
    order = msgspec.msgpack.encode(rows.reorderings)
    header = _HEADER.pack(
        _MAGIC,
        rows.receipt,
        rows.session,
        rows.pos_start,
        len(rows.inputs),
        _DTYPES.index(rows.dtype),
        rows.batch,
        memoryview(rows.inputs[0]).nbytes,
        len(order),
    )
    body = b"".join([header, *rows.inputs, *rows.outputs, order])
    return body + _CHECKSUM.pack(crc32(body))


def _length(header: bytes) -> int | None:
    """How long the record is that starts so; None where none does."""
    if len(header) < _HEADER.size or header[:4] != _MAGIC:
        return None
    _magic, _receipt, _session, _pos, count, _dtype, _batch, size, order = _HEADER.unpack_from(header)
    return int(_HEADER.size + 2 * count * size + order + _CHECKSUM.size)


def _decode(raw: bytes) -> ArchivedRows | None:
    if _length(raw) != len(raw) or _CHECKSUM.unpack(raw[-_CHECKSUM.size :])[0] != crc32(raw[: -_CHECKSUM.size]):
        return None
    _magic, receipt, session, pos_start, count, dtype, batch, size, _order = _HEADER.unpack_from(raw)
    view = memoryview(raw)[_HEADER.size :]
    rows = tuple(view[at * size : (at + 1) * size] for at in range(2 * count))
    reorderings = msgspec.msgpack.decode(view[2 * count * size : -_CHECKSUM.size], type=tuple[Reordering, ...])
    return ArchivedRows(
        Hash32(receipt), SessionId(session), pos_start, _DTYPES[dtype], batch, rows[:count], rows[count:], reorderings
    )
