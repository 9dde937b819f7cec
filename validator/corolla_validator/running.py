"""A validator put together: joined to the swarm and the chain, with its model's thresholds and its books."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time

from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Chain
from corolla_core.model.calibrated import Calibrated, shipped_calibration
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.manifest import Manifest
from corolla_core.model.smollm import NAME, prepare_smollm
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.signature import Signer
from corolla_core.store.store import Store
from corolla_core.swarm.directory import Directory
from corolla_core.swarm.libp2p import Libp2p
from corolla_validator.auditor import Auditor
from corolla_validator.bar import Bar
from corolla_validator.blocks import ChainBeacons
from corolla_validator.config import ValidatorSettings
from corolla_validator.evidence_folder import EvidenceFolder
from corolla_validator.examiner import Examiner
from corolla_validator.nodes import SwarmNodes
from corolla_validator.ports import Tell
from corolla_validator.recent import RecentLookup
from corolla_validator.rounds import Plan, Rounds


@dataclass(frozen=True, slots=True)
class Validator:
    """Everything `run` and `audit` use."""

    directory: Directory
    nodes: SwarmNodes
    store: Store
    manifest: Manifest
    rounds: Rounds
    bar: Bar


@dataclass(frozen=True, slots=True)
class Folder:
    """Where a validator keeps its books and its evidence."""

    path: Path

    @property
    def store(self) -> Path:
        return self.path / "books.db"

    @property
    def evidence(self) -> Path:
        return self.path / "evidence"


@dataclass(frozen=True, slots=True)
class Bench:
    """A model's weights with what nodes are judged by."""

    checkpoint: Checkpoint
    manifest: Manifest
    calibrated: Calibrated

    def auditor(self) -> Auditor:
        return Auditor.of(self.checkpoint, self.manifest, self.calibrated.calibration)


def open_bench(settings: ValidatorSettings) -> Bench:
    """Raises ConfigError, ModelError, InvalidInput for a calibration file that is none, NotCalibrated."""
    if settings.model is None:
        raise ConfigError("name a model to validate")
    ref = str(prepare_smollm()) if settings.model == NAME else settings.model
    checkpoint = open_checkpoint(ref)
    manifest = Manifest.beside(checkpoint)
    if settings.calibration is None:
        return Bench(checkpoint, manifest, shipped_calibration(manifest.root))
    try:
        text = settings.calibration.read_bytes()
    except OSError as error:
        raise ConfigError(f"no calibration: {error}") from None
    return Bench(checkpoint, manifest, Calibrated.from_json(text))


@asynccontextmanager
async def validating(
    settings: ValidatorSettings, network: Network, folder: Folder, signer: Signer | None, *, tell: Tell
) -> AsyncIterator[Validator]:
    """Raises what `open_bench` does, ChainError, NetworkError when no bootstrap peer answers, StoreError."""
    bench = await asyncio.to_thread(open_bench, settings)
    async with (
        await Chain.connect(network) as chain,
        await asyncio.to_thread(Store.open, settings.store or folder.store) as store,
    ):
        directory = await Directory.start(network=network.name, bootstrap=network.bootstrap, client_mode=True)
        libp2p = Libp2p(directory)
        nodes = SwarmNodes(signer or Signer(secrets.token_bytes(32)), fallback=libp2p)
        evidence = EvidenceFolder(folder.evidence, limit=settings.evidence_bytes)
        examiner = Examiner(nodes, store, bench.auditor(), evidence, clock=time)
        try:
            bar = Bar(chain, signer, store, settings, bench.manifest, tell=tell)
            rounds = Rounds(
                model_root=bench.manifest.root,
                num_blocks=bench.manifest.num_blocks,
                directory=RecentLookup(directory),
                nodes=nodes,
                beacons=ChainBeacons(chain),
                store=store,
                examiner=examiner,
                published=bar.published,
                clock=time,
                tell=tell,
                court=bar.court,
                plan=Plan(settings.probability, settings.most_positions, quiet=settings.quiet),
            )
            bar.asks(rounds)
            await rounds.load()
            yield Validator(directory, nodes, store, bench.manifest, rounds, bar)
        finally:
            await nodes.close()
            await libp2p.stop()
            await directory.stop()
