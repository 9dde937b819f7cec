"""A validator put together: joined to the swarm and the chain, with its model's thresholds and its books."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time

from corolla_core.chain.network import Network
from corolla_core.chain.operators import Operators
from corolla_core.chain.rpc import Chain
from corolla_core.model.calibrated import Calibrated, shipped_calibration
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.chunks import Chunks
from corolla_core.model.home import models_dir
from corolla_core.model.manifest import Manifest
from corolla_core.model.smollm import NAME, prepare_smollm
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.possession import Pace
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.units import Wei, nectar_from_text
from corolla_core.store.store import Store
from corolla_core.swarm.directory import Directory
from corolla_core.swarm.libp2p import Libp2p
from corolla_core.swarm.membership import MembersLookup, member
from corolla_validator.auditor import Auditor
from corolla_validator.bar import Bar
from corolla_validator.blocks import ChainBeacons
from corolla_validator.config import ValidatorSettings
from corolla_validator.evidence_folder import EvidenceFolder
from corolla_validator.examiner import Examiner
from corolla_validator.fees import Fees
from corolla_validator.known_nodes import KnownNodes
from corolla_validator.nodes import SwarmNodes
from corolla_validator.ports import Lookup, Tell
from corolla_validator.possession import SLACK_SECONDS, PossessionPlan, Possessions
from corolla_validator.press import Press, Ratings
from corolla_validator.probe_client import ClientProgram
from corolla_validator.probe_purse import ChainPurse
from corolla_validator.probes import Material, ProbePlan, Probes
from corolla_validator.recent import RecentLookup
from corolla_validator.rounds import Plan, Rounds
from corolla_validator.texts import prose

ACCOUNTS = 4
"""that probe at a time"""


@dataclass(frozen=True, slots=True)
class Validator:
    """Everything `run` and `audit` use."""

    directory: Directory
    nodes: SwarmNodes
    store: Store
    manifest: Manifest
    rounds: Rounds
    bar: Bar
    press: Press | None
    """what it publishes scores with; None without an account, or where the network has no oracle"""
    possessions: Possessions | None
    """None where nodes are not asked to show their weights."""
    probes: Probes | None
    """None where none are wanted."""

    async def join(self) -> None:
        """Stake where that is wanted and was not done before. Raises ChainError."""
        await self.bar.join()
        if self.press is not None:
            await self.press.join()


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

    @property
    def probes(self) -> Path:
        """The homes of the accounts that probe."""
        return self.path / "probes"


@dataclass(frozen=True, slots=True)
class Bench:
    """A model's weights with what nodes are judged by."""

    checkpoint: Checkpoint
    manifest: Manifest
    calibrated: Calibrated
    ref: str
    """What the checkpoint is opened by."""

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
        return Bench(checkpoint, manifest, shipped_calibration(manifest.root), ref)
    try:
        text = settings.calibration.read_bytes()
    except OSError as error:
        raise ConfigError(f"no calibration: {error}") from None
    return Bench(checkpoint, manifest, Calibrated.from_json(text), ref)


@asynccontextmanager
async def validating(
    settings: ValidatorSettings,
    network: Network,
    folder: Folder,
    signer: Signer | None,
    *,
    purse: Signer | None = None,
    tell: Tell,
) -> AsyncIterator[Validator]:
    """`purse` pays for probes. Raises what `open_bench` does, ConfigError where that is `signer` too, ChainError,
    NetworkError when no bootstrap peer answers, StoreError."""
    bench = await asyncio.to_thread(open_bench, settings)
    async with (
        await Chain.connect(network) as chain,
        await asyncio.to_thread(Store.open, settings.store or folder.store) as store,
        AsyncExitStack() as stack,
    ):
        directory = await Directory.start(network=network.name, bootstrap=network.bootstrap, client_mode=True)
        libp2p = Libp2p(directory)
        nodes = SwarmNodes(signer or Signer(secrets.token_bytes(32)), fallback=libp2p)
        evidence = EvidenceFolder(folder.evidence, limit=settings.evidence_bytes)
        examiner = Examiner(nodes, store, bench.auditor(), evidence, clock=time)
        try:
            bar = Bar(chain, signer, store, settings, bench.manifest, tell=tell)
            known: Lookup = directory
            if network.is_private:
                if signer is None:
                    raise ConfigError("a private swarm is audited with an account that its consortium attests")
                membership = await stack.enter_async_context(member(Operators(chain), signer.address))
                known = MembersLookup(directory, membership)
            recent = RecentLookup(known)
            rounds = Rounds(
                model_root=bench.manifest.root,
                num_blocks=bench.manifest.num_blocks,
                directory=recent,
                nodes=nodes,
                beacons=ChainBeacons(chain),
                store=store,
                examiner=examiner,
                published=bar.published,
                clock=time,
                tell=tell,
                known=KnownNodes(Ratings(store, Fees(chain, store), settings.terms, clock=time).now),
                court=bar.court,
                plan=Plan(settings.probability, settings.most_positions, quiet=settings.quiet),
            )
            bar.asks(rounds)
            await rounds.load()
            press = Press.of(chain, signer, store, settings, tell=tell)
            possessions = None
            if settings.possession_every:
                possessions = await asyncio.to_thread(_possessions, settings, bench, recent, nodes, store, tell)
            probes = None
            if purse is not None and settings.probes_per_hour:
                staked = None if signer is None else signer.address
                given = ChainPurse(chain, purse, staked=staked, gas=Wei(settings.probe_gas))
                probes = _probes(settings, network, bench, folder, given, rounds, store, tell)
                await probes.load()
            yield Validator(directory, nodes, store, bench.manifest, rounds, bar, press, possessions, probes)
        finally:
            await nodes.close()
            await libp2p.stop()
            await directory.stop()


def _possessions(
    settings: ValidatorSettings, bench: Bench, directory: Lookup, nodes: SwarmNodes, store: Store, tell: Tell
) -> Possessions:
    pace = Pace(settings.possession_rate, SLACK_SECONDS)
    return Possessions(
        Chunks(bench.checkpoint, Span(0, bench.manifest.num_blocks)),
        model_root=bench.manifest.root,
        num_blocks=bench.manifest.num_blocks,
        directory=directory,
        nodes=nodes,
        store=store,
        clock=time,
        rng=secrets.SystemRandom(),
        tell=tell,
        plan=PossessionPlan(settings.possession_every, settings.possession_bytes, pace),
    )


def _probes(
    settings: ValidatorSettings,
    network: Network,
    bench: Bench,
    folder: Folder,
    purse: ChainPurse,
    rounds: Rounds,
    store: Store,
    tell: Tell,
) -> Probes:
    tokenizer = bench.checkpoint.tokenizer()
    chat = bool(getattr(tokenizer, "chat_template", None))

    def count(text: str) -> int:
        if not chat:
            return len(tokenizer(text)["input_ids"])
        asked = [{"role": "user", "content": text}]
        return len(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"])

    ref = str(Path(bench.ref).absolute()) if Path(bench.ref).is_dir() else bench.ref
    return Probes(
        ClientProgram(folder.probes, network, ref, models=models_dir(), raw=not chat, command=settings.probe_client),
        purse,
        rounds,
        store=store,
        material=Material(folder.probes / "material.txt", first=prose()),
        count=count,
        clock=time,
        rng=secrets.SystemRandom(),
        tell=tell,
        plan=ProbePlan(
            settings.probes_per_hour,
            daily=nectar_from_text(settings.probe_daily),
            deposit=nectar_from_text(settings.probe_deposit),
            pool=ACCOUNTS,
            life=settings.probe_life,
        ),
    )
