"""A checkpoint anywhere: its config, its tokenizer, and any of its tensors without reading the others."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from corolla_core.model.home import models_dir
from corolla_core.model.http_source import HttpSource
from corolla_core.model.layout import DTYPES, LENGTH_BYTES, TensorEntry, bytes_of, header_length, parse_header
from corolla_core.model.source import (
    CONFIG_FILE,
    GENERATION_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    SINGLE_FILE,
    TOKENIZER_FILES,
    DirectorySource,
    HubSource,
    Source,
    plain_name,
)
from corolla_core.protocol.errors import InvalidSpan, ModelError, UnsupportedModel, WeightsCorrupt, WeightsMissing
from corolla_core.protocol.span import Span

MAX_RUN_BYTES = 64 * 1024 * 1024
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


class Checkpoint:
    """One model version. Cheap to open: weights are only touched by `read`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name = source.name
        self._headers: dict[str, dict[str, TensorEntry]] = {}
        self._lock = Lock()

    @cached_property
    def folder(self) -> Path:
        """A local directory with everything but the weights."""
        return self._source.folder((CONFIG_FILE, GENERATION_FILE, INDEX_FILE, MANIFEST_FILE, *TOKENIZER_FILES))

    @cached_property
    def config(self) -> Any:
        """The `PretrainedConfig`. Raises UnsupportedModel, or ModelError when there is none to read."""
        from transformers import AutoConfig

        if not (self.folder / CONFIG_FILE).is_file():
            raise ModelError(f"{self.name} has no {CONFIG_FILE}")
        try:
            return AutoConfig.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # transformers raises anything from KeyError to its own validation errors
            raise UnsupportedModel(f"{self.name}: transformers cannot read the config: {error!s:.300}") from None

    @property
    def text_config(self) -> Any:
        return self.config.get_text_config(decoder=True)

    @property
    def num_blocks(self) -> int:
        return int(self.text_config.num_hidden_layers)

    def check_span(self, span: Span) -> None:
        """Raises InvalidSpan where it ends beyond the last block."""
        if span.end > self.num_blocks:
            raise InvalidSpan(f"{self.name} has {self.num_blocks} blocks", start=span.start, end=span.end)

    @property
    def hidden_size(self) -> int:
        return int(self.text_config.hidden_size)

    @property
    def max_positions(self) -> int | None:
        """How long a text the model was made for, None where its config does not say."""
        found = getattr(self.text_config, "max_position_embeddings", None)
        return found if isinstance(found, int) and found > 0 else None

    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer with its chat template. Raises ModelError."""
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise ModelError(f"{self.name}: no usable tokenizer: {error!s:.300}") from None

    @cached_property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids that end a text: the generation config's, else the config's."""
        from transformers import GenerationConfig

        found = self.text_config.eos_token_id
        if (self.folder / GENERATION_FILE).is_file():
            found = GenerationConfig.from_pretrained(self.folder, local_files_only=True).eos_token_id or found
        if found is None:
            return ()
        return tuple(int(i) for i in found) if isinstance(found, (list, tuple)) else (int(found),)

    @cached_property
    def weight_files(self) -> dict[str, str] | None:
        """Tensor name → file, from the index of a checkpoint in shards; None for one single file."""
        try:
            index = json.loads((self.folder / INDEX_FILE).read_bytes())
            return {str(name): plain_name(file) for name, file in index["weight_map"].items()}
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise WeightsCorrupt("the index of the weights does not parse", path=self.folder / INDEX_FILE) from None

    @property
    def tensor_names(self) -> list[str]:
        """Every tensor of the checkpoint, sorted."""
        files = self.weight_files
        return sorted(self._header(SINGLE_FILE) if files is None else files)

    def entry(self, name: str) -> TensorEntry:
        """Where a tensor lies. Reads (only) the header of its file. Raises WeightsMissing, WeightsCorrupt."""
        files = self.weight_files
        file = SINGLE_FILE if files is None else files.get(name)
        found = self._header(file).get(name) if file else None
        if found is None:
            raise WeightsMissing(f"{self.name} has no such tensor", names=[name])
        return found

    def read(self, names: Iterable[str], *, progress: Progress | None = None) -> dict[str, Tensor]:
        """These tensors, each in memory of its own, in the dtype they are stored in. Nothing else is read; tensors
        that lie side by side are read in one go. Raises WeightsMissing, WeightsCorrupt."""
        entries = [self.entry(name) for name in names]
        total, done = sum(entry.nbytes for entry in entries), 0
        raw = {entry.name: torch.empty(entry.nbytes, dtype=torch.uint8) for entry in entries}
        for run in _runs(entries):
            self._source.read_into(run[0].file, run[0].start, [bytes_of(raw[e.name]) for e in run])
            done += sum(entry.nbytes for entry in run)
            if progress is not None:
                progress(done, total)
        return {e.name: raw[e.name].view(DTYPES[e.dtype]).reshape(e.shape) for e in entries}

    def read_part(self, entry: TensorEntry, start: int, buffer: memoryview) -> None:
        """Fill the buffer with a tensor's bytes as stored, from its byte `start` on. Raises ModelError."""
        self._source.read_into(entry.file, entry.start + start, [buffer])

    def _header(self, file: str) -> dict[str, TensorEntry]:
        with self._lock:
            if file not in self._headers:
                size = self._source.size(file)
                length = header_length(self._bytes(file, 0, min(LENGTH_BYTES, size)), file)
                if LENGTH_BYTES + length > size:
                    raise WeightsCorrupt("the file ends inside its header", path=file)
                self._headers[file] = parse_header(self._bytes(file, LENGTH_BYTES, length), file, file_size=size)
            return self._headers[file]

    def _bytes(self, file: str, start: int, length: int) -> bytes:
        buffer = bytearray(length)
        self._source.read_into(file, start, [memoryview(buffer)])
        return bytes(buffer)


def open_checkpoint(ref: str, *, cache_dir: Path | None = None) -> Checkpoint:
    """The checkpoint `ref` names: a local directory, `http(s)://…` (a server of such a directory that answers range
    requests), or a hub repository `hf:org/name` or `org/name`. Raises ModelError."""
    if ref.startswith(("http://", "https://")):
        return Checkpoint(HttpSource(ref, cache_dir=(cache_dir or models_dir()) / "http"))
    if not ref.startswith("hf:") and (Path(ref).expanduser().is_dir() or ref.count("/") != 1 or ref[0] in "./~"):
        return Checkpoint(DirectorySource(Path(ref).expanduser()))
    return Checkpoint(HubSource(ref.removeprefix("hf:"), cache_dir=cache_dir))


def _runs(entries: Sequence[TensorEntry]) -> list[list[TensorEntry]]:
    """The entries grouped into stretches of one file without a gap, none much longer than MAX_RUN_BYTES."""
    by_file: dict[str, list[TensorEntry]] = defaultdict(list)
    for entry in entries:
        by_file[entry.file].append(entry)
    runs: list[list[TensorEntry]] = []
    for group in by_file.values():
        end = -1
        for entry in sorted(group, key=lambda e: (e.start, e.end)):
            if entry.start == end and entry.end - runs[-1][0].start <= MAX_RUN_BYTES:
                runs[-1].append(entry)
            else:
                runs.append([entry])
            end = entry.end
    return runs
