"""The model registry: which weights a model's name stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils.crypto import keccak

from corolla_core.chain.contract import Contract
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.protocol.errors import ChainError, TransactionReverted, UnsupportedModel
from corolla_core.protocol.ids import Hash32, ModelRoot
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.units import UnixTime

_CLASS_BY_HASH = {keccak(text=each.value): each for each in NumericClass}


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One immutable version. `numeric_classes` leaves out classes this program does not know."""

    model_id: Hash32
    version: int
    manifest_root: ModelRoot
    block_roots: tuple[Hash32, ...]
    numeric_classes: tuple[NumericClass, ...]
    published_at: UnixTime
    deprecated: bool


class Models(Contract):
    abi_name = "ModelRegistry"

    def __init__(self, chain: Chain, sender: TransactionSender | None = None) -> None:
        super().__init__(chain, chain.network.models, sender)

    async def publish(
        self,
        name: str,
        manifest_root: ModelRoot,
        block_roots: Sequence[Hash32],
        numeric_classes: Sequence[NumericClass],
    ) -> ModelVersion:
        """Publish the next version of a name, taking the name if it is free. Raises TransactionReverted."""
        classes = [keccak(text=each.value) for each in numeric_classes]
        mined = await self._send("publish", name, manifest_root, list(block_roots), classes)
        for event in self._events(mined, "ModelPublished"):
            return await self.version(name, event.arguments["version"])
        raise ChainError("publishing a model left no event")

    async def latest(self, name: str) -> ModelVersion:
        """The newest version not deprecated. Raises UnsupportedModel when there is none."""
        try:
            number, found = await self._read("latest", model_id(name))
        except TransactionReverted:
            raise UnsupportedModel(f"network {self.chain.network.name} has no model {name!r}") from None
        return _version(name, number, found)

    async def versions(self, name: str, root: ModelRoot) -> list[ModelVersion]:
        """Every version of a name with this manifest root, deprecated or not, in order."""
        numbers = range(1, await self._read("versionCount", model_id(name)) + 1)
        found = [await self.version(name, number) for number in numbers]
        return [version for version in found if version.manifest_root == root]

    async def version(self, name: str, number: int) -> ModelVersion:
        """One version, deprecated or not. Raises UnsupportedModel when there is none."""
        try:
            found = await self._read("versionOf", model_id(name), number)
        except TransactionReverted:
            raise UnsupportedModel(f"model {name!r} has no version {number}") from None
        return _version(name, number, found)

    async def deprecate(self, name: str, number: int) -> None:
        await self._send("deprecate", model_id(name), number)


def model_id(name: str) -> Hash32:
    return Hash32(keccak(text=name))


def _version(
    name: str, number: int, found: tuple[bytes, int, bool, tuple[bytes, ...], tuple[bytes, ...]]
) -> ModelVersion:
    root, published_at, deprecated, block_roots, classes = found
    return ModelVersion(
        model_id=model_id(name),
        version=number,
        manifest_root=ModelRoot(root),
        block_roots=tuple(map(Hash32, block_roots)),
        numeric_classes=tuple(_CLASS_BY_HASH[each] for each in classes if each in _CLASS_BY_HASH),
        published_at=UnixTime(published_at),
        deprecated=deprecated,
    )
