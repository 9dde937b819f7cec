"""Where a checkpoint's bytes come from: a directory here, a hub repository there. (HTTP is in `http_source.py`.)"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from corolla_core.protocol.errors import ModelError, WeightsCorrupt, WeightsMissing

#: everything but weights that a checkpoint may hold; small, so sources that are far away fetch them whole
CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
MANIFEST_FILE = "corolla.manifest.json"
GENERATION_FILE = "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
MAX_SMALL_FILE = 256 * 1024 * 1024


class Source(Protocol):
    """Bytes of the files of one checkpoint. File names are checked by `plain_name` before they reach a source."""

    name: str

    def folder(self, files: Sequence[str]) -> Path:
        """A directory holding those of the small `files` that exist."""

    def size(self, file: str) -> int:
        """Bytes in a weights file. Raises WeightsMissing."""

    def read_into(self, file: str, start: int, buffers: Sequence[memoryview]) -> None:
        """Fill the buffers one after another with the bytes from `start` on. Raises WeightsCorrupt when the file ends
        first, WeightsMissing when there is none."""


def plain_name(file: object) -> str:
    """A file name that cannot leave its folder; WeightsCorrupt otherwise (the name came from an index file)."""
    if not isinstance(file, str) or not file or "\\" in file or "\0" in file or len(file) > 255:
        raise WeightsCorrupt(f"not a file name: {file!r:.80}", path=INDEX_FILE)
    parts = PurePosixPath(file).parts
    if file.startswith("/") or ".." in parts or ":" in file or "?" in file or "#" in file or "%" in file:
        raise WeightsCorrupt(f"not a file name inside the checkpoint: {file!r:.80}", path=INDEX_FILE)
    return file


class DirectorySource:
    """A checkpoint directory on this machine."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ModelError(f"no checkpoint directory at {path}")
        self.path = path
        self.name = path.resolve().name

    def folder(self, files: Sequence[str]) -> Path:
        return self.path

    def size(self, file: str) -> int:
        try:
            return (self.path / file).stat().st_size
        except OSError:
            raise WeightsMissing(f"no {file} in {self.path}", names=[file]) from None

    def read_into(self, file: str, start: int, buffers: Sequence[memoryview]) -> None:
        try:
            with (self.path / file).open("rb", buffering=0) as stream:
                for buffer in buffers:
                    start += _pread(stream.fileno(), buffer, start, path=self.path / file)
        except FileNotFoundError:
            raise WeightsMissing(f"no {file} in {self.path}", names=[file]) from None
        except OSError as error:
            raise WeightsCorrupt(f"cannot read {file}: {error}", path=self.path / file) from None


class HubSource:
    """A repository of the Hugging Face hub; each file is fetched into the hub's cache the first time it is needed."""

    def __init__(self, repo: str, *, cache_dir: Path | None = None) -> None:
        self.name = repo
        self._cache_dir = cache_dir

    def folder(self, files: Sequence[str]) -> Path:
        found = [path for file in files if (path := self._fetch(file, required=file == CONFIG_FILE)) is not None]
        return found[0].parent

    def size(self, file: str) -> int:
        return self._weights(file).stat().st_size

    def read_into(self, file: str, start: int, buffers: Sequence[memoryview]) -> None:
        path = self._weights(file)
        DirectorySource(path.parent).read_into(path.name, start, buffers)

    def _weights(self, file: str) -> Path:
        path = self._fetch(file, required=True)
        assert path is not None
        return path

    def _fetch(self, file: str, *, required: bool) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.name, file, cache_dir=self._cache_dir))
        except (EntryNotFoundError, OSError, ValueError) as error:
            # LocalEntryNotFoundError: the hub is out of reach (or HF_HUB_OFFLINE is set) and the file is not cached.
            absent = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
            if not required and (absent or isinstance(error, LocalEntryNotFoundError)):
                return None
            raise ModelError(
                f"cannot get {file} of {self.name} from the Hugging Face hub: {_first_line(error)}. "
                "Give a local directory or an http(s) address instead, or unset HF_HUB_OFFLINE."
            ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _pread(fd: int, buffer: memoryview, start: int, *, path: Path) -> int:
    done = 0
    while done < len(buffer):
        count = os.preadv(fd, [buffer[done:]], start + done)
        if count == 0:
            raise WeightsCorrupt("the file ends inside a tensor", path=path)
        done += count
    return done
