"""The transcripts audits were judged on, as files that anyone can judge again."""

from __future__ import annotations

import os
from pathlib import Path

from corolla_core.protocol.errors import InvalidInput, StoreError
from corolla_core.protocol.ids import Hash32, hash32
from corolla_core.protocol.transcript import Transcript

_SUFFIX = ".evidence"


class EvidenceFolder:
    """At most `limit` bytes of transcripts; the oldest go first, those kept for good never. They hold the rows that
    went through nodes, from which prompts can be read: nobody else may read the files."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def keep(self, transcript: Transcript, *, for_good: bool) -> Hash32:
        """Its hash, which names it. Raises StoreError when the disk does not take it."""
        data, name = transcript.encode(), transcript.hash()
        place = self._for_good(name) if for_good else self._passing(name)
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make_room(len(data))
            new = place.with_suffix(".new")
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(place)
        except OSError as error:
            raise StoreError(f"the evidence cannot be kept: {error}", reason="full") from None
        return name

    def read(self, evidence: Hash32) -> Transcript:
        """Raises StoreError when it is not there or is damaged."""
        for place in (self._for_good(evidence), self._passing(evidence)):
            try:
                transcript = Transcript.decode(place.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, InvalidInput) as error:
                raise StoreError(f"{place} cannot be read: {error}", reason="corrupt") from None
            if transcript.hash() != evidence:
                raise StoreError(f"{place} holds something else", reason="corrupt")
            return transcript
        raise StoreError(f"no evidence {evidence.hex()} in {self._folder}", reason="unavailable")

    def names(self) -> list[Hash32]:
        """What is kept, by name."""
        found = [*self._folder.glob(f"*/*{_SUFFIX}")]
        return sorted({hash32(path.stem) for path in found})

    def _make_room(self, size: int) -> None:
        """Drop the oldest passing evidence until `size` more bytes fit."""
        held = sorted((self._folder / "passing").glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
        sizes = {path: path.stat().st_size for path in held}
        left = sum(sizes.values())
        for path in held:
            if left + size <= self._limit:
                break
            left -= sizes[path]
            path.unlink(missing_ok=True)

    def _passing(self, name: Hash32) -> Path:
        return self._folder / "passing" / f"{name.hex()}{_SUFFIX}"

    def _for_good(self, name: Hash32) -> Path:
        return self._folder / "kept" / f"{name.hex()}{_SUFFIX}"
