"""A checkpoint on a web server: headers and tensors are fetched by range request and kept on disk.

Cache: `<cache>/<hash of the address>/` holds the small files, and `ranges/` one file per stretch of bytes fetched,
named by the weights file's size, version tag and the stretch, and ending in the SHA-256 of what is before it, so that
a changed or half-written file is fetched again instead of trusted.
"""

from __future__ import annotations

import os
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock

import httpx

from corolla_core.model.source import MAX_SMALL_FILE
from corolla_core.protocol.errors import ModelError, WeightsCorrupt, WeightsMissing

_DIGEST_BYTES = 32
_ATTEMPTS = 4
_READ_BLOCK = 1 << 20


class HttpSource:
    """Files under one base address. Needs a server that answers `Range` (RFC 9110 section 14)."""

    def __init__(self, base: str, *, cache_dir: Path, client: httpx.Client | None = None) -> None:
        self._base = base.rstrip("/") + "/"
        self.name = self._base.rstrip("/").rsplit("/", 1)[-1]
        self._folder = cache_dir / sha256(self._base.encode()).hexdigest()[:32]
        self._client = client or httpx.Client(timeout=30.0, follow_redirects=True)
        if client is None:
            weakref.finalize(self, self._client.close)
        self._versions: dict[str, tuple[int, str]] = {}
        self._kept: dict[str, dict[tuple[int, int], Path]] = {}
        self._lock = Lock()

    def folder(self, files: Sequence[str]) -> Path:
        try:
            for file in files:
                content = self._get(file)
                if content is None:
                    (self._folder / file).unlink(missing_ok=True)
                else:
                    _write_atomically(self._folder / file, [content])
        except OSError as error:
            raise ModelError(f"cannot keep {self._base} in {self._folder}: {error}") from None
        return self._folder

    def size(self, file: str) -> int:
        return self._version(file)[0]

    def read_into(self, file: str, start: int, buffers: Sequence[memoryview]) -> None:
        length = sum(len(buffer) for buffer in buffers)
        size, tag = self._version(file)
        if start + length > size:
            raise WeightsCorrupt("the file ends inside a tensor", path=self._base + file)
        if length == 0:
            return
        if self._read_part_of_kept(file, start, buffers, length):
            return
        key = sha256(f"{file}\n{size}\n{tag}\n{start}\n{length}".encode()).hexdigest()
        cached = self._folder / "ranges" / key
        if not _read_checked(cached, buffers, length):
            self._fetch(file, start, buffers, size=size)
            with suppress(OSError):  # a full disk costs the next start a download, not this one its weights
                _write_atomically(cached, [*buffers, _digest(buffers)])
        with self._lock:
            self._kept.setdefault(file, {})[start, length] = cached

    def _read_part_of_kept(self, file: str, start: int, buffers: Sequence[memoryview], length: int) -> bool:
        """Whether the buffers were filled from a longer stretch on disk that was whole when this process read it. (The
        digest at its end is over all of it: what is read here must be checked by who reads it.)"""
        with self._lock:
            kept = list(self._kept.get(file, {}).items())
        for (kept_start, kept_length), path in kept:
            if kept_length == length or not kept_start <= start < start + length <= kept_start + kept_length:
                continue
            try:
                with path.open("rb", buffering=0) as stream:
                    stream.seek(start - kept_start)
                    if all(stream.readinto(piece) == len(piece) for piece in _pieces(buffers)):
                        return True
            except OSError:
                continue
        return False

    def _version(self, file: str) -> tuple[int, str]:
        """(bytes in all, entity tag), asked once with a request for the first byte."""
        with self._lock:
            if file not in self._versions:
                try:
                    with self._request(file, {"Range": "bytes=0-0"}) as response:
                        if response.status_code == 404:
                            raise WeightsMissing(f"{self._base} has no {file}", names=[file])
                        total = self._total(response, file)
                        tag = response.headers.get("etag") or response.headers.get("last-modified") or ""
                except httpx.TransportError as error:
                    raise ModelError(f"cannot reach {self._base}{file}: {error}") from None
                self._versions[file] = (total, tag)
            return self._versions[file]

    def _fetch(self, file: str, start: int, buffers: Sequence[memoryview], *, size: int) -> None:
        end = start + sum(len(buffer) for buffer in buffers)
        at = start
        for attempt in range(_ATTEMPTS):
            try:
                with self._request(file, {"Range": f"bytes={at}-{end - 1}"}) as response:
                    if self._total(response, file) != size:
                        raise WeightsCorrupt("the file changed while it was read", path=self._base + file)
                    for chunk in response.iter_raw():  # as it comes: what came before a break stays
                        _scatter(chunk, at - start, buffers)
                        at += len(chunk)
                if at == end:
                    return
            except httpx.TransportError as error:
                if attempt == _ATTEMPTS - 1:
                    raise ModelError(f"reading {self._base}{file} failed: {error}") from None
                time.sleep(0.2 * 2**attempt)
        raise ModelError(f"{self._base}{file}: the server sent {at - start} of {end - start} bytes")

    def _total(self, response: httpx.Response, file: str) -> int:
        if response.status_code != 206:
            raise ModelError(f"{self._base}{file}: HTTP {response.status_code} to a range request (206 is needed)")
        _unit, _slash, total = response.headers.get("content-range", "").partition("/")
        if not total.isdecimal() or len(total) > 18:
            raise ModelError(f"{self._base}{file}: the server does not tell how long the file is")
        return int(total)

    def _request(self, file: str, headers: dict[str, str]) -> _Stream:
        return _Stream(self._client, self._base + file, {"Accept-Encoding": "identity", **headers})

    def _get(self, file: str) -> bytes | None:
        """A small file, None when there is none."""
        try:
            with self._client.stream("GET", self._base + file) as response:
                if response.status_code in (403, 404):
                    return None
                response.raise_for_status()
                content = bytearray()
                for chunk in response.iter_bytes(_READ_BLOCK):
                    content += chunk
                    if len(content) > MAX_SMALL_FILE:
                        raise ModelError(f"{self._base}{file} is too large")
                return bytes(content)
        except httpx.HTTPError as error:
            raise ModelError(f"cannot read {self._base}{file}: {error}") from None


class _Stream:
    """A streamed GET, as a context manager with a name a signature can say."""

    def __init__(self, client: httpx.Client, url: str, headers: dict[str, str]) -> None:
        self._context = client.stream("GET", url, headers=headers)

    def __enter__(self) -> httpx.Response:
        return self._context.__enter__()

    def __exit__(self, *exception: object) -> None:
        self._context.__exit__(None, None, None)


def _scatter(chunk: bytes, offset: int, buffers: Sequence[memoryview]) -> None:
    """Copy a chunk of the concatenation of the buffers, `offset` bytes from its beginning, into place."""
    view = memoryview(chunk)
    for buffer in buffers:
        if offset < len(buffer) and len(view):
            take = min(len(buffer) - offset, len(view))
            buffer[offset : offset + take] = view[:take]
            view, offset = view[take:], 0
        else:
            offset = max(0, offset - len(buffer))
    if len(view):
        raise ModelError("the server sent more than was asked for")


def _digest(buffers: Sequence[memoryview]) -> bytes:
    state = sha256()
    for buffer in buffers:
        state.update(buffer)
    return state.digest()


def _read_checked(path: Path, buffers: Sequence[memoryview], length: int) -> bool:
    """Whether the cache file is whole and untouched; then the buffers are filled from it."""
    try:
        with path.open("rb", buffering=0) as stream:
            if os.fstat(stream.fileno()).st_size != length + _DIGEST_BYTES:
                return False
            for piece in _pieces(buffers):
                if stream.readinto(piece) != len(piece):
                    return False
            return stream.read(_DIGEST_BYTES) == _digest(buffers)
    except OSError:
        return False


def _pieces(buffers: Sequence[memoryview]) -> Iterator[memoryview]:
    for buffer in buffers:
        for start in range(0, len(buffer), 1 << 28):
            yield buffer[start : start + (1 << 28)]


def _write_atomically(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for part in parts:
                stream.write(part)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
