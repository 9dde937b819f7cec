"""The explorer put together: joined to the swarm and the chain, over a validator's books, and served."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from corolla_core.chain.indexer import Indexer
from corolla_core.chain.network import Network
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.smollm import NAME, prepare_smollm
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import Address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.store.index_store import IndexStore
from corolla_core.store.store import Store
from corolla_core.swarm.directory import Directory
from corolla_core.swarm.libp2p import Libp2p
from corolla_validator.config import ValidatorSettings
from corolla_validator.explorer.app import LOOPBACK_NAMES, create_app
from corolla_validator.explorer.books import Books
from corolla_validator.explorer.models import PlaygroundView
from corolla_validator.explorer.overview import About
from corolla_validator.explorer.playground import MOST_TOKENS, Playground
from corolla_validator.explorer.sources import NetworkSources
from corolla_validator.explorer.watch import Watch
from corolla_validator.nodes import SwarmNodes
from corolla_validator.running import Folder


@asynccontextmanager
async def exploring(settings: ValidatorSettings, network: Network, folder: Folder) -> AsyncIterator[FastAPI]:
    """Asks nodes by a passing key: nothing here is signed or sent, but hellos.

    Raises ConfigError, ModelError, ChainError, StoreError, NetworkError when no bootstrap peer answers.
    """
    manifest = await asyncio.to_thread(_manifest, settings)
    async with (
        await Chain.connect(network, deadline=10.0) as chain,
        await asyncio.to_thread(Store.open, settings.store or folder.store) as books,
        await asyncio.to_thread(Store.open, folder.path / "explorer.db") as index,
    ):
        log = IndexStore(index, f"explorer {network.escrow}")
        indexer = Indexer(chain, log, start=settings.explorer_from_block)
        await indexer.load()
        directory = await Directory.start(network=network.name, bootstrap=network.bootstrap, client_mode=True)
        libp2p = Libp2p(directory)
        nodes = SwarmNodes(Signer(secrets.token_bytes(32)), fallback=libp2p)
        sources = NetworkSources(
            directory,
            indexer,
            Registry(chain),
            Books(books, settings.terms, clock=time.time),
            model_root=manifest.root,
            num_blocks=manifest.num_blocks,
        )
        playground = None
        try:
            about = About(
                network=network.name,
                chain_id=network.chain_id,
                model=manifest.name,
                model_root=manifest.root.hex(),
                num_blocks=manifest.num_blocks,
                tx_url=settings.explorer_tx_url,
                playground=PlaygroundView(available=settings.explorer_gateway is not None, most_tokens=MOST_TOKENS),
            )
            watch = Watch(about, sources, nodes, clock=time.time, monotonic=time.monotonic)
            if settings.explorer_gateway is not None:
                playground = _playground(settings, settings.explorer_gateway, manifest.name, watch)
            names = (*LOOPBACK_NAMES, settings.explorer_host, *settings.explorer_names)
            yield create_app(watch, playground, names=names)
        finally:
            if playground is not None:
                await playground.close()
            await nodes.close()
            await libp2p.stop()
            await directory.stop()


def _manifest(settings: ValidatorSettings) -> Manifest:
    if settings.model is None:
        raise ConfigError("name the model to show")
    return Manifest.beside(open_checkpoint(str(prepare_smollm()) if settings.model == NAME else settings.model))


def _playground(settings: ValidatorSettings, gateway: str, model: str, watch: Watch) -> Playground:
    def price_of(account: Address, span: Span) -> int | None:
        node = watch.sightings.get(account)
        return None if node is None else node.price.of(span, 1)

    key = None if settings.explorer_gateway_key_file is None else _key(settings.explorer_gateway_key_file)
    return Playground(gateway, key, settings.explorer_gateway_model or model, price_of=price_of)


def _key(file: Path) -> str:
    try:
        return file.read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        raise ConfigError(f"no gateway key in {file}") from None
