"""A whole node, put together: joins the swarm, loads its blocks, stakes, and serves until told to stop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random
from time import time

import structlog
from torch import get_num_threads

from corolla_core.chain.cooperative import CooperativeFactory
from corolla_core.chain.devnet_keys import DEVNET_CHAIN_IDS
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.faults import Faults
from corolla_core.chain.models import Models
from corolla_core.chain.network import Network
from corolla_core.chain.operators import Operators
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.config.tracing import tracing_from_environment
from corolla_core.model.checkpoint import Checkpoint
from corolla_core.model.chunks import Chunks
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.errors import ConfigError
from corolla_core.protocol.ids import ZERO_ADDRESS, address
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.store.store import Store
from corolla_core.swarm.directory import Directory
from corolla_core.swarm.libp2p import Libp2p
from corolla_core.swarm.membership import Lookup, MembersLookup, member
from corolla_node.archive import Archive
from corolla_node.books import Books
from corolla_node.config import NodeSettings
from corolla_node.data_dir import DataDir
from corolla_node.desk import Policy
from corolla_node.engine import NUMERIC_CLASS, Engine, choose_engine, this_machine
from corolla_node.loading import (
    Loaded,
    block_bytes,
    blocks_that_fit,
    choose_blocks,
    load,
    open_model,
)
from corolla_node.metrics import NodeMetrics
from corolla_node.onchain import EscrowTill, FaultsDocket, check_model, ensure_registered
from corolla_node.opener import Opener
from corolla_node.placement import Placement
from corolla_node.pooled import ensure_pooled
from corolla_node.redeemer import Redeemer, Thrift
from corolla_node.running import Ready, Running
from corolla_node.server import Offer
from corolla_node.serving import Serving, Terms, serving
from corolla_node.stop import Stop

_log = structlog.get_logger(__name__)
_RPC_SECONDS = 30.0
_ELEMENT_BYTES = 4
"""Of a row, at most: clients choose the wire dtype."""
_LEAST_LOOK_SECONDS, _MOST_LOOK_SECONDS = 1.0, 30.0
"""Between two looks for challenges: often enough for ten of them before a deadline."""
_TRANCHE_SECONDS = 24 * 3600
"""How long after the work it is redeemed at most, but for the grace: its audit window only begins then."""

Report = Callable[[str, int, int], None]
"""Progress of one phase: (what, done, in all)."""


async def run_node(
    settings: NodeSettings,
    *,
    signer: Signer,
    network: Network,
    data_dir: DataDir,
    stop: Stop,
    on_ready: Callable[[Ready], None],
    report: Report = lambda what, done, total: None,
    rng: Random | None = None,
) -> None:
    """Serve until `stop` is asked. Raises ConfigError, ModelError, ChainError, NetworkError or InsufficientFunds when
    the node cannot come up, and NetworkError, having left in order, when p2pd has died under it."""
    if settings.model is None:
        raise ConfigError("name a model to serve")
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(await Chain.connect(network, deadline=_RPC_SECONDS))
        directory = await stack.enter_async_context(_joined(settings, network, data_dir))
        membership = None
        if network.is_private:
            membership = await stack.enter_async_context(member(Operators(chain), signer.address))
        swarm = directory if membership is None else MembersLookup(directory, membership)
        checkpoint, manifest = await asyncio.to_thread(open_model, settings.model)
        engine = await _engine(settings, checkpoint, await check_model(Models(chain), manifest))
        settings = settings.model_copy(update={"device": engine.device, "dtype": engine.dtype})
        rng = rng or Random()
        span = settings.span or await _choose(settings, engine, checkpoint, manifest, swarm, rng)
        source = _Source(settings, checkpoint, manifest, report)
        loaded = await source.load(span)
        sender = TransactionSender(chain, signer)
        registry = Registry(chain, sender)
        if settings.cooperative is not None:
            if settings.owner or settings.stake:
                raise ConfigError("a cooperative is the owner and brings the stake: no --owner or --stake beside it")
            pool = await CooperativeFactory(chain, sender).cooperative(address(settings.cooperative))
            await ensure_pooled(registry, pool, account=signer.address, peer_id=directory.peer_id)
        else:
            await ensure_registered(
                registry,
                Token(chain, sender),
                account=signer.address,
                peer_id=directory.peer_id,
                owner=address(settings.owner) if settings.owner else None,
                stake=settings.stake_amount,
            )
        store = await stack.enter_async_context(
            await asyncio.to_thread(Store.open, settings.store or data_dir.store_path)
        )
        books = Books(store, payee=signer.address, model_root=manifest.root, clock=time)
        await books.close_cut_off()
        escrow = Escrow(chain, sender)
        parameters = await escrow.parameters()
        retention = settings.receipt_retention
        if retention is None:
            retention = parameters.audit_window + parameters.grace + _TRANCHE_SECONDS
        faults = Faults(chain, sender) if network.faults != ZERO_ADDRESS else None
        demands = await faults.parameters() if faults is not None else None
        owed = demands.opening_age + demands.response_time if demands is not None else 0
        window = retention if settings.audit_window is None else settings.audit_window
        if window < owed:
            _log.warning("rows are kept for as long as they may be asked for on chain", wanted=window, seconds=owed)
        needed = loaded.throughput * 2 * loaded.blocks.hidden_size * _ELEMENT_BYTES * owed // 1000
        if needed > settings.audit_disk:
            _log.warning("at full load rows go before their time", audit_disk=settings.audit_disk, needed=needed)
        archive = await asyncio.to_thread(
            lambda: Archive(
                data_dir.rows_path,
                limit=settings.audit_disk,
                window=max(window, owed),
                owed=owed,
                clock=time,
            )
        )
        await books.note_places(await asyncio.to_thread(archive.recover, await books.last_place()))
        libp2p = Libp2p(directory)
        metrics = NodeMetrics()
        tracing = tracing_from_environment("corolla-node")
        if tracing is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.close)
        stack.push_async_callback(libp2p.stop)

        @asynccontextmanager
        async def serve(loaded: Loaded) -> AsyncIterator[Serving]:
            offer = Offer(
                signer.address,
                manifest.root,
                loaded.blocks,
                manifest.weight_root,
                NUMERIC_CLASS[settings.dtype],
                Price(settings.price),
                await asyncio.to_thread(Chunks, checkpoint, loaded.blocks.span),
            )
            gc.collect()
            gc.freeze()  # weights and modules live long: the collector need not look at them again
            try:
                async with serving(
                    offer,
                    _terms(settings, network),
                    signer=signer,
                    tranches=escrow,
                    memory=books,
                    archive=archive,
                    write=books.write,
                    clock=time,
                    fallback=libp2p,
                    tidy=lambda: _tidy(books, archive, retention),
                    membership=membership,
                    metrics=metrics,
                    tracing=tracing,
                ) as served:
                    await libp2p.start(signer, served.handler)
                    yield served
                    await libp2p.stop()
            finally:
                gc.unfreeze()

        opener = None
        if faults is not None and demands is not None:
            docket = FaultsDocket(chain, faults, signer.address)
            interval = min(max(demands.response_time / 10, _LEAST_LOOK_SECONDS), _MOST_LOOK_SECONDS)
            opener = Opener(docket, archive, books.place, interval=interval)
        placement = None
        if settings.span is None and settings.rebalance_interval:
            placement = Placement(
                swarm,
                signer.address,
                manifest.root,
                checkpoint.num_blocks,
                interval=settings.rebalance_interval,
                threshold=settings.rebalance_threshold,
                clock=time,
                rng=rng,
            )
        node = Running(
            settings,
            network,
            data_dir,
            signer,
            directory,
            manifest,
            source,
            serve,
            placement,
            Redeemer(
                EscrowTill(chain, escrow),
                books,
                clock=time,
                thrift=_thrift(settings, network),
                interval=settings.redeem_interval,
                grace=parameters.grace,
            ),
            opener,
            metrics,
        )
        running = node.until_stopped(stop, loaded, on_ready)
        del loaded  # a node that moves lets go of its blocks
        lost = await running
    if lost is not None:
        raise lost


class _Source:
    """Where this node's blocks come from."""

    def __init__(self, settings: NodeSettings, checkpoint: Checkpoint, manifest: Manifest, report: Report) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._manifest = manifest
        self._report = report

    async def load(self, span: Span) -> Loaded:
        """Raises ModelError."""
        return await asyncio.to_thread(
            load,
            self._checkpoint,
            self._manifest,
            span,
            device=self._settings.device,
            dtype=self._settings.dtype,
            progress=lambda done, total: self._report(f"loading blocks {span}", done, total),
        )

    def has_room(self, span: Span) -> bool:
        """Whether these blocks fit beside those that are in memory now; of a device's own memory that is not known."""
        free = this_machine().memory
        fitting = blocks_that_fit(self._checkpoint, dtype=self._settings.dtype, memory=free)
        return self._settings.device == "cpu" and fitting >= len(span)


@asynccontextmanager
async def _joined(settings: NodeSettings, network: Network, data_dir: DataDir) -> AsyncIterator[Directory]:
    directory = await Directory.start(
        network=network.name,
        bootstrap=network.bootstrap,
        identity_path=data_dir.identity_path,
        listen=[f"/ip4/{settings.host}/tcp/0"],
    )
    try:
        yield directory
    finally:
        await directory.stop()


async def _engine(settings: NodeSettings, checkpoint: Checkpoint, admitted: tuple[NumericClass, ...]) -> Engine:
    machine = await asyncio.to_thread(this_machine)
    engine = await asyncio.to_thread(
        choose_engine,
        settings.device,
        settings.dtype,
        admitted=admitted,
        machine=machine,
        block_bytes=partial(block_bytes, checkpoint),
    )
    _log.info("computes with", device=engine.device, dtype=engine.dtype, why=engine.why, threads=get_num_threads())
    return engine


async def _choose(
    settings: NodeSettings,
    engine: Engine,
    checkpoint: Checkpoint,
    manifest: Manifest,
    swarm: Lookup,
    rng: Random,
) -> Span:
    fitting = await asyncio.to_thread(blocks_that_fit, checkpoint, dtype=engine.dtype, memory=engine.memory)
    nodes = await swarm.lookup(manifest.root, checkpoint.num_blocks)
    span = choose_blocks(checkpoint, nodes, at_most=min(fitting, settings.max_blocks or fitting), rng=rng)
    _log.info("chose blocks", span=str(span), nodes_seen=len(nodes))
    return span


async def _tidy(books: Books, archive: Archive, retention: float) -> None:
    """Drop what no audit can ask for any more."""
    await books.forget_receipts(retention)
    await asyncio.to_thread(archive.expire)
    await books.forget_places(archive.first_segment)


def _terms(settings: NodeSettings, network: Network) -> Terms:
    return Terms(
        domain=network.domain,
        policy=Policy(
            max_chunk_tokens=settings.max_chunk_tokens,
            payment_grace=settings.payment_grace,
            orphan_grace=settings.orphan_grace,
            idle_grace=settings.idle_grace,
            first_step_grace=settings.first_step_grace,
            max_sessions=settings.max_sessions,
            client_share=settings.client_share,
            client_sessions=settings.client_sessions,
        ),
        kv_budget=settings.kv_budget,
        host=settings.host,
        port=settings.port,
        expiry_margin=settings.expiry_margin,
    )


def _thrift(settings: NodeSettings, network: Network) -> Thrift:
    if settings.gas_value is not None:
        return Thrift(gas_value=settings.gas_value)
    return Thrift(gas_value=0) if network.chain_id in DEVNET_CHAIN_IDS else Thrift()
