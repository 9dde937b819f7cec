"""What a model version is, as hashes: its manifest root is the model's name on chain and in the swarm.

    tensor leaf = H(0 ‖ "tensor" ‖ len ‖ {"name","dtype","shape"} as JSON ‖ root of H(0 ‖ bytes) over 1 MiB chunks)
    part root   = Merkle root over the leaves of the part's tensors, sorted by name
    file leaf   = H(0 ‖ "file" ‖ len ‖ {"name"} as JSON ‖ root over its chunks)
    root        = Merkle root over (name leaf, config root, front root, root over block roots, head root)

Tensors are hashed as stored in the checkpoint, before any conversion or cast; H is SHA-256 (`protocol.merkle`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from corolla_core.model.checkpoint import Checkpoint, Progress
from corolla_core.model.layout import bytes_of
from corolla_core.model.partial import Front, Head, tensors_by_block, tensors_needed
from corolla_core.model.source import CONFIG_FILE, GENERATION_FILE, MANIFEST_FILE, TOKENIZER_FILES
from corolla_core.protocol.errors import InvalidInput, ModelError, WeightsCorrupt, WeightsMissing
from corolla_core.protocol.ids import Hash32, ModelRoot, hash32
from corolla_core.protocol.merkle import leaf_hash, merkle_root
from corolla_core.protocol.span import Span

CHUNK_BYTES = 1 << 20
FORMAT = "corolla/manifest/v1"
_MAX_NAME = 64
_MAX_BLOCKS = 4096


@dataclass(frozen=True)
class Manifest:
    """The roots of one model version. Nodes and clients check what they load against it, part by part."""

    name: str
    config_root: Hash32
    front_root: Hash32
    block_roots: tuple[Hash32, ...]
    head_root: Hash32

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= _MAX_NAME or not 0 < len(self.block_roots) <= _MAX_BLOCKS:
            raise InvalidInput("a manifest has a name of at most 64 characters and 1 to 4096 blocks")
        for root in (self.config_root, self.front_root, self.head_root, *self.block_roots):
            hash32(root)

    @property
    def num_blocks(self) -> int:
        return len(self.block_roots)

    @cached_property
    def root(self) -> ModelRoot:
        """The name of this model version everywhere outside this machine."""
        blocks = self.weight_root(Span(0, self.num_blocks))
        name = _leaf("model", {"name": self.name, "blocks": self.num_blocks})
        return ModelRoot(merkle_root([name, self.config_root, self.front_root, blocks, self.head_root]))

    def weight_root(self, span: Span) -> Hash32:
        """What a node serving `span` commits to. Raises InvalidInput when the model has no such blocks."""
        if span.end > self.num_blocks:
            raise InvalidInput(f"{self.name} has {self.num_blocks} blocks, no {span}")
        return merkle_root(self.block_roots[span.start : span.end])

    def check_blocks(self, checkpoint: Checkpoint, span: Span, tensors: Mapping[str, Tensor]) -> None:
        """Raises WeightsCorrupt unless the tensors read from `checkpoint` are the blocks of `span`."""
        self._check_config(checkpoint)
        for block, names in tensors_by_block(span, checkpoint.config, tensors).items():
            self._check(checkpoint, self.block_roots[block], tensors, names, what=f"block {block}")

    def check_front(self, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
        """Raises WeightsCorrupt unless the tensors are the front's."""
        self._check_config(checkpoint)
        self._check(checkpoint, self.front_root, tensors, list(tensors), what="the embeddings")

    def check_head(self, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
        """Raises WeightsCorrupt unless the tensors are the head's."""
        self._check_config(checkpoint)
        self._check(checkpoint, self.head_root, tensors, list(tensors), what="the head")

    def _check_config(self, checkpoint: Checkpoint) -> None:
        if checkpoint.num_blocks != self.num_blocks or config_root(checkpoint) != self.config_root:
            raise WeightsCorrupt("the config or tokenizer is not the manifest's", path=checkpoint.folder)

    def _check(
        self, checkpoint: Checkpoint, root: Hash32, tensors: Mapping[str, Tensor], names: list[str], *, what: str
    ) -> None:
        if tensors_root(checkpoint, {name: tensors[name] for name in names}) != root:
            raise WeightsCorrupt(f"{what} of {self.name} does not match its manifest", path=checkpoint.folder)

    def to_json(self) -> str:
        body = {
            "format": FORMAT,
            "name": self.name,
            "root": self.root.hex(),
            "config_root": self.config_root.hex(),
            "front_root": self.front_root.hex(),
            "block_roots": [root.hex() for root in self.block_roots],
            "head_root": self.head_root.hex(),
        }
        return json.dumps(body, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Raises InvalidInput for anything but a manifest whose stated root is its root."""
        try:
            body = json.loads(text)
            roots = [hash32(body[key]) for key in ("config_root", "front_root", "head_root")]
            blocks = tuple(hash32(root) for root in body["block_roots"])
            name, stated, version = body["name"], hash32(body["root"]), body["format"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InvalidInput("not a manifest") from None
        if not isinstance(name, str) or version != FORMAT:
            raise InvalidInput("not a manifest of this version")
        manifest = cls(name, roots[0], roots[1], blocks, roots[2])
        if bytes(manifest.root) != bytes(stated):
            raise InvalidInput("the manifest's roots do not give the root it states")
        return manifest

    @classmethod
    def beside(cls, checkpoint: Checkpoint) -> Manifest:
        """The manifest file in the checkpoint. Raises ModelError when there is none."""
        path: Path = checkpoint.folder / MANIFEST_FILE
        if not path.is_file():
            raise ModelError(f"{checkpoint.name} has no {MANIFEST_FILE}; build one with build_manifest")
        return cls.from_json(path.read_bytes())


def build_manifest(checkpoint: Checkpoint, *, name: str | None = None, progress: Progress | None = None) -> Manifest:
    """Hash a whole checkpoint, one part in memory at a time. Raises WeightsMissing when a part has no tensors."""
    blocks = []
    whole = Span(0, checkpoint.num_blocks)
    for block, names in tensors_by_block(whole, checkpoint.config, checkpoint.tensor_names).items():
        blocks.append(tensors_root(checkpoint, checkpoint.read(names)))
        if progress is not None:
            progress(block + 1, checkpoint.num_blocks)
    return Manifest(
        name=name or checkpoint.name,
        config_root=config_root(checkpoint),
        front_root=_part_root(checkpoint, Front()),
        block_roots=tuple(blocks),
        head_root=_part_root(checkpoint, Head()),
    )


def tensors_root(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> Hash32:
    """The root of one part, from the bytes in memory."""
    leaves = []
    for name in sorted(tensors):
        entry, tensor = checkpoint.entry(name), tensors[name]
        about = {"name": name, "dtype": entry.dtype, "shape": list(entry.shape)}
        leaves.append(_leaf("tensor", about, bytes_of(tensor)))
    if not leaves:
        raise WeightsMissing("no tensors to hash", names=[])
    return merkle_root(leaves)


def config_root(checkpoint: Checkpoint) -> Hash32:
    """The root over the files that say how the weights are used: config, generation config, tokenizer."""
    paths = [checkpoint.folder / file for file in sorted((CONFIG_FILE, GENERATION_FILE, *TOKENIZER_FILES))]
    return merkle_root(_leaf("file", {"name": p.name}, memoryview(p.read_bytes())) for p in paths if p.is_file())


def _part_root(checkpoint: Checkpoint, part: Front | Head) -> Hash32:
    names = tensors_needed(part, checkpoint.config, checkpoint.tensor_names)
    return tensors_root(checkpoint, checkpoint.read(names))


def _leaf(kind: str, about: Mapping[str, object], content: memoryview | None = None) -> Hash32:
    described = json.dumps(about, sort_keys=True, separators=(",", ":")).encode()
    prefix = kind.encode() + len(described).to_bytes(4, "big") + described
    if content is None:
        return leaf_hash(prefix)
    return leaf_hash(prefix, merkle_root(leaf_hash(chunk) for chunk in _chunks(content)))


def _chunks(content: memoryview) -> Iterable[memoryview]:
    if not len(content):
        yield content
    for start in range(0, len(content), CHUNK_BYTES):
        yield content[start : start + CHUNK_BYTES]
