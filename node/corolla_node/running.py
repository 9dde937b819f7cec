"""A node that is up: what it does beside serving, and how it leaves."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, replace
from time import time
from typing import Any, Protocol

import structlog

from corolla_core.chain.network import Network
from corolla_core.config.metrics import serve_metrics
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.errors import CorollaError, ModelError, NetworkError
from corolla_core.protocol.ids import Address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.directory import Directory
from corolla_node.announcer import Announcer, Condition
from corolla_node.config import NodeSettings
from corolla_node.data_dir import DataDir
from corolla_node.engine import NUMERIC_CLASS
from corolla_node.loading import Loaded
from corolla_node.metrics import NodeMetrics, StatusCollector
from corolla_node.opener import Opener
from corolla_node.placement import Held, Placement
from corolla_node.redeemer import Redeemer
from corolla_node.serving import Serving
from corolla_node.stop import Stop, unless

_log = structlog.get_logger(__name__)

STATUS_SECONDS = 1.0
_FINAL_REDEEM_SECONDS = 60.0
_FINAL_ANSWER_SECONDS = 10.0
_WITHDRAW_SECONDS = 3.0
_SAME_MOMENT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Ready:
    """What a node that serves says of itself."""

    account: Address
    peer_id: str
    host: str
    port: int
    cert_hash: bytes
    span: Span
    model: str
    model_root: bytes
    addresses: tuple[str, ...]
    metrics_port: int | None
    event: str = "ready"
    """or "moved", when it serves other blocks than before"""

    def to_json(self) -> dict[str, Any]:
        return {
            "event": self.event,
            "account": self.account,
            "peer_id": self.peer_id,
            "host": self.host,
            "port": self.port,
            "cert_hash": self.cert_hash.hex(),
            "span": str(self.span),
            "model": self.model,
            "model_root": self.model_root.hex(),
            "addresses": list(self.addresses),
            "metrics_port": self.metrics_port,
            "pid": os.getpid(),
        }


class Source(Protocol):
    """Where a node's blocks come from."""

    async def load(self, span: Span) -> Loaded:
        """Raises ModelError."""
        ...

    def has_room(self, span: Span) -> bool:
        """Whether these blocks can be held beside those that are served now."""
        ...


class Running:
    """A node that is up: what it does beside serving, and how it goes over to other blocks."""

    def __init__(
        self,
        settings: NodeSettings,
        network: Network,
        data_dir: DataDir,
        signer: Signer,
        directory: Directory,
        manifest: Manifest,
        source: Source,
        serve: Callable[[Loaded], AbstractAsyncContextManager[Serving]],
        placement: Placement | None,
        redeemer: Redeemer,
        opener: Opener | None,
        metrics: NodeMetrics,
    ) -> None:
        """`settings` name the device and dtype chosen. `placement` is None for a node that stays where it is, `opener`
        where nobody can demand openings."""
        self._settings = settings
        self._network = network
        self._data_dir = data_dir
        self._signer = signer
        self._directory = directory
        self._manifest = manifest
        self._source = source
        self._serve = serve
        self._placement = placement
        self._redeemer = redeemer
        self._opener = opener
        self._metrics = metrics
        self._last_status: dict[str, Any] = {}
        self._started = time()
        self._lost: CorollaError | None = None
        self._served: Serving | None = None
        self._shown: dict[str, Any] = {}
        self._moving = False
        self._moves = 0

    async def until_stopped(self, stop: Stop, first: Loaded, on_ready: Callable[[Ready], None]) -> CorollaError | None:
        """Serves, `first` first, until `stop` is asked; or until nobody can find this node any more, or it can load no
        blocks any more, and then returns why."""
        async with AsyncExitStack() as stack:
            await self._settle(first)
            del first  # nobody but what serves it holds on to a block
            stack.push_async_callback(self._unsettle)
            metrics_port = None
            if self._settings.metrics_port is not None:
                metrics_port, stop_metrics = self._serve_metrics(self._settings.metrics_port)
                stack.push_async_callback(asyncio.to_thread, stop_metrics)
            self._announcer = Announcer(
                self._directory,
                self._template(),
                signer=self._signer,
                condition=self._condition,
                clock=time,
                ttl_ms=int(self._settings.announce_ttl * 1000),
            )
            await self._announcer.join()
            async with asyncio.TaskGroup() as tasks:
                working = [
                    tasks.create_task(self._announcer.run()),
                    tasks.create_task(self._redeemer.run()),
                    tasks.create_task(self._keep_status()),
                    tasks.create_task(self._watch_directory(stop)),
                    *([tasks.create_task(self._opener.run())] if self._opener is not None else []),
                ]
                stop.up = True
                on_ready(self._ready(metrics_port))
                while (there := await self._until_needed_elsewhere(stop)) is not None:
                    try:
                        if await self._move(there, stop):
                            on_ready(replace(self._ready(metrics_port), event="moved"))
                    except CorollaError as error:
                        self._lost = error
                        _log.error("leaving", error=str(error))
                        stop.drain()
                await self._leave(stop)
                for task in working:
                    task.cancel()
            self._data_dir.write_status(self.status() | {"state": "stopped"})
        return self._lost

    def _serve_metrics(self, port: int) -> tuple[int, Callable[[], None]]:
        """Raises NetworkError. What is shown is a second old at most: scrapes come on another thread, and the status is
        made on this one."""
        self.status()
        collectors = (self._metrics, StatusCollector(lambda: self._last_status))
        return serve_metrics(collectors, port=port, host=self._settings.metrics_host)

    # Where to serve

    async def _settle(self, loaded: Loaded) -> None:
        self._exit = AsyncExitStack()
        self._served = await self._exit.enter_async_context(self._serve(loaded))
        self._held = Held(loaded.blocks.span, loaded.throughput, loaded.seconds, time())

    async def _unsettle(self) -> None:
        """Without sessions of its own; what was accepted is on disk then, and the blocks are free to go."""
        if self._served is not None:
            self.status()  # the last of its figures
            self._served = None
            await self._exit.aclose()
            gc.collect()

    async def _until_needed_elsewhere(self, stop: Stop) -> Span | None:
        """Where to; None when the node is to stop."""
        if self._placement is None:
            await stop.asked.wait()
            return None
        return await unless(stop.asked, self._placement.better(self._held))

    async def _move(self, there: Span, stop: Stop) -> bool:
        """Serve other blocks: no new sessions, the old ones to their end or for as long as they may, then the switch.
        Others are told at once, lest they go there too. Whether that was done; not when the node is to stop, or has to
        stay for want of the other blocks. Raises ModelError, NetworkError where it cannot even stay."""
        served, before = self._serving, self._held.span
        _log.info("moving", to=str(there), sessions=served.server.sessions)
        served.server.draining = self._moving = True
        self._held = replace(self._held, span=there)
        self._announcer.move(self._template())
        beside = await asyncio.to_thread(self._source.has_room, there)
        loading = asyncio.create_task(self._source.load(there)) if beside else None
        try:
            await unless(stop.asked, served.server.drain(self._settings.move_grace, "the node moves"))
            if stop.asked.is_set():
                return False
            if not beside:
                del served
                await self._unsettle()
            loaded = await unless(stop.asked, self._load(there, before, loading))
            if loaded is None:
                return False
            await self._unsettle()
            await self._settle(loaded)
        finally:
            self._moving = False
            if loading is not None:
                loading.cancel()
        self._announcer.move(self._template())
        moved = self._held.span == there
        self._moves += moved
        return moved

    async def _load(self, there: Span, before: Span, loading: asyncio.Task[Loaded] | None) -> Loaded:
        """The blocks to move to, or those from before when they cannot be had. Raises ModelError."""
        try:
            return await (loading or self._source.load(there))
        except ModelError as error:
            _log.error("staying", blocks=str(before), error=str(error))
            return await self._source.load(before)

    async def _watch_directory(self, stop: Stop) -> None:
        """Without p2pd the node is up but invisible: better it ends, so that its supervisor starts it anew."""
        await self._directory.ended()
        await asyncio.sleep(_SAME_MOMENT_SECONDS)  # Ctrl-C reaches p2pd as well as us
        if not stop.asked.is_set():
            self._lost = NetworkError("p2pd has ended, so that nobody finds this node any more")
            _log.error("leaving", error=str(self._lost))
            stop.drain()

    async def _leave(self, stop: Stop) -> None:
        if self._served is not None:
            server = self._served.server
            _log.info("draining", sessions=server.sessions)
            server.draining = True
            self._announcer.changed()
            await unless(stop.at_once, server.drain(self._settings.drain_timeout))
            await server.drain(0)
        with suppress(TimeoutError):
            async with asyncio.timeout(_WITHDRAW_SECONDS):
                await self._announcer.withdraw()
        try:
            if self._served is not None:
                await self._served.bookkeeper.flush()
            async with asyncio.timeout(_FINAL_REDEEM_SECONDS):
                await self._redeemer.redeem(final=True)
        except (CorollaError, TimeoutError) as error:
            _log.warning("vouchers are left in the store for the next start", error=str(error))
        await self._answer_last()

    async def _answer_last(self) -> None:
        """Nobody answers once this node is gone."""
        if self._opener is None:
            return
        try:
            async with asyncio.timeout(_FINAL_ANSWER_SECONDS):
                await self._opener.turn()
        except (CorollaError, TimeoutError) as error:
            _log.warning("it is not known whether a challenge waits for an answer", error=str(error))

    def status(self) -> dict[str, Any]:
        """What `node status --json` shows."""
        served = self._served
        if served is not None:
            self._shown = _figures(served)
        self._last_status = {
            "account": self._signer.address,
            "pid": os.getpid(),
            "network": self._network.name,
            "model": self._manifest.name,
            "model_root": self._manifest.root.hex(),
            "span": str(self._held.span),
            "state": str(self._state()),
            "online": self._state() is NodeState.ONLINE,
            "device": self._settings.device,
            "dtype": self._settings.dtype,
            "moves": self._moves,
            "host": self._settings.host,
            "peer_id": self._directory.peer_id,
            "price": self._settings.price,
            **self._shown,
            "throughput": self._throughput() / 1000,
            "redeemed": str(self._redeemer.total),
            "held": str(self._redeemer.held),
            "challenges_pending": self._opener.pending if self._opener is not None else 0,
            "challenges_answered": self._opener.answered if self._opener is not None else 0,
            "challenges_missed": self._opener.missed if self._opener is not None else 0,
            "started_at": self._started,
            "written_at": time(),
        }
        return self._last_status

    async def _keep_status(self) -> None:
        while True:
            try:
                self._data_dir.write_status(self.status())
            except OSError as error:
                _log.warning("the status cannot be written", error=str(error))
            await asyncio.sleep(STATUS_SECONDS)

    def _state(self) -> NodeState:
        """While it moves its announcement names the new blocks already."""
        if self._moving:
            return NodeState.LOADING
        served = self._served
        return NodeState.DRAINING if served is None or served.server.draining else NodeState.ONLINE

    def _throughput(self) -> int:
        served = self._served
        return (0 if served is None else round(1000 * served.timings.throughput())) or self._held.throughput

    def _condition(self) -> Condition:
        served = self._served
        return Condition(self._state(), self._throughput(), 0 if served is None else served.server.kv_free_tokens)

    def _ready(self, metrics_port: int | None) -> Ready:
        return Ready(
            account=self._signer.address,
            peer_id=self._directory.peer_id,
            host=self._public_host,
            port=self._serving.listener.port,
            cert_hash=self._serving.listener.cert_hash,
            span=self._held.span,
            model=self._manifest.name,
            model_root=self._manifest.root,
            addresses=tuple(self._directory.addresses()),
            metrics_port=metrics_port,
        )

    @property
    def _serving(self) -> Serving:
        assert self._served is not None
        return self._served

    @property
    def _public_host(self) -> str:
        return self._settings.public_host or self._settings.host

    def _template(self) -> Announcement:
        return Announcement(
            network=self._network.name,
            model_root=self._manifest.root,
            span=self._held.span,
            account=self._signer.address,
            peer_id=self._directory.peer_id,
            host=self._public_host,
            port=self._serving.listener.port,
            cert_hash=self._serving.listener.cert_hash,
            price_per_token_block=self._settings.price,
            numeric_class=NUMERIC_CLASS[self._settings.dtype],
            wire_dtypes=NUMERIC_CLASS[self._settings.dtype].wires,
            throughput=self._held.throughput,
            kv_free_tokens=0,
            state=NodeState.LOADING,
            issued_at=0,
            expires_at=1,
        )


def _figures(served: Serving) -> dict[str, Any]:
    """What the status shows of the blocks served now."""
    server, timings = served.server, served.timings
    return {
        "port": served.listener.port,
        "sessions": server.sessions,
        "queued": server.info().queued,
        "peers_in": len(served.listener.connections),
        "peers_out": len(served.links),
        "kv_free": served.kv.free,
        "kv_reserved": served.kv.used,
        "kv_total": served.kv.total,
        "prefix_bytes": served.prefixes.used,
        "positions_reused": served.prefixes.reused,
        "tokens_served": timings.tokens,
        "row_bytes_lost": served.archive.lost,
        "timings": timings.summary(),
    }
