"""What models a network has, read from the registry's events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corolla_core.chain.mined import parse_logs
from corolla_core.chain.models import Models, ModelVersion
from corolla_core.chain.rpc import Chain
from corolla_core.protocol.errors import UnsupportedModel

#: endpoints commonly refuse wider ranges
_BLOCKS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """A name and its newest version that is not deprecated."""

    name: str
    version: ModelVersion


async def published_models(chain: Chain, *, since_block: int = 0) -> list[PublishedModel]:
    """Every model with a usable version, by name. Raises ChainError."""
    models = Models(chain)
    newest = await chain.block_number()
    names: set[str] = set()
    for start in range(since_block, newest + 1, _BLOCKS_AT_ONCE):
        asked: dict[str, Any] = {
            "address": models.address,
            "fromBlock": hex(start),
            "toBlock": hex(min(newest, start + _BLOCKS_AT_ONCE - 1)),
        }
        for entry in parse_logs(await chain.request("eth_getLogs", asked)):
            event = models.abi.decode_log(entry.topics, entry.data)
            if event is not None and event.name == "ModelPublished":
                names.add(str(event.arguments["name"]))
    found = []
    for name in sorted(names):
        try:
            found.append(PublishedModel(name, await models.latest(name)))
        except UnsupportedModel:
            continue  # every version of it is deprecated
    return found
