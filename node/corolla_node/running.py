"""A node that is up: what it does beside serving, and how it leaves."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from time import time
from typing import Any

import structlog

from corolla_core.chain.network import Network
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.errors import CorollaError, NetworkError
from corolla_core.protocol.ids import Address
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.directory import Directory
from corolla_node.announcer import Announcer, Condition
from corolla_node.config import NodeSettings
from corolla_node.data_dir import DataDir
from corolla_node.engine import NUMERIC_CLASS
from corolla_node.metrics import serve_metrics
from corolla_node.opener import Opener
from corolla_node.redeemer import Redeemer
from corolla_node.serving import Serving

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

    def to_json(self) -> dict[str, Any]:
        return {
            "event": "ready",
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


class Stop:
    """How a node is told to stop: the first SIGTERM drains, SIGINT or a second SIGTERM does not wait for sessions."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()
        self.up = False
        """set by the node once it serves; before that there is nothing to drain"""

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.drain)
        loop.add_signal_handler(signal.SIGINT, self.now)

    def drain(self) -> None:
        if self.asked.is_set():
            self.at_once.set()
        self.asked.set()

    def now(self) -> None:
        self.at_once.set()
        self.asked.set()


async def supervise(node: Coroutine[Any, Any, None], stop: Stop) -> None:
    """Run a node; one that is told to stop before it is up is cancelled. Raises what the node raises."""
    running = asyncio.create_task(node)
    asked = asyncio.create_task(stop.asked.wait())
    try:
        await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done() and not stop.up:
            _log.info("stopped before it was up")
            running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    finally:
        asked.cancel()


class Running:
    """A node that is up: what it does beside serving."""

    def __init__(
        self,
        settings: NodeSettings,
        network: Network,
        data_dir: DataDir,
        signer: Signer,
        directory: Directory,
        manifest: Manifest,
        span: Span,
        throughput: int,
        served: Serving,
        redeemer: Redeemer,
        opener: Opener | None,
    ) -> None:
        """`settings` name the device and dtype chosen; `opener` is None where nobody can demand openings."""
        self._settings = settings
        self._network = network
        self._data_dir = data_dir
        self._signer = signer
        self._directory = directory
        self._manifest = manifest
        self._span = span
        self._measured = throughput
        self._served = served
        self._redeemer = redeemer
        self._opener = opener
        self._started = time()
        self._lost: NetworkError | None = None
        self._announcer = Announcer(
            directory,
            self._template(),
            signer=signer,
            condition=self._condition,
            clock=time,
            ttl_ms=int(settings.announce_ttl * 1000),
        )

    async def until_stopped(self, stop: Stop, on_ready: Callable[[Ready], None]) -> NetworkError | None:
        """Serves until `stop` is asked; or until nobody can find this node any more, and then returns why."""
        async with AsyncExitStack() as stack:
            metrics_port = None
            if self._settings.metrics_port is not None:
                metrics_port, stop_metrics = serve_metrics(self._settings.metrics_port, self.status)
                stack.push_async_callback(asyncio.to_thread, stop_metrics)
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
                await stop.asked.wait()
                await self._leave(stop)
                for task in working:
                    task.cancel()
            self._data_dir.write_status(self.status() | {"state": "stopped"})
        return self._lost

    async def _watch_directory(self, stop: Stop) -> None:
        """Without p2pd the node is up but invisible: better it ends, so that its supervisor starts it anew."""
        await self._directory.ended()
        await asyncio.sleep(_SAME_MOMENT_SECONDS)  # Ctrl-C reaches p2pd as well as us
        if not stop.asked.is_set():
            self._lost = NetworkError("p2pd has ended, so that nobody finds this node any more")
            _log.error("leaving", error=str(self._lost))
            stop.drain()

    async def _leave(self, stop: Stop) -> None:
        _log.info("draining", sessions=self._served.server.sessions)
        self._served.server.draining = True
        self._announcer.changed()
        drained = asyncio.create_task(
            self._served.server.drain(0 if stop.at_once.is_set() else self._settings.drain_timeout)
        )
        hurried = asyncio.create_task(stop.at_once.wait())
        await asyncio.wait([drained, hurried], return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        drained.cancel()
        with suppress(asyncio.CancelledError):
            await drained
        await self._served.server.drain(0)
        with suppress(TimeoutError):
            async with asyncio.timeout(_WITHDRAW_SECONDS):
                await self._announcer.withdraw()
        try:
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
        server, timings = self._served.server, self._served.timings
        return {
            "account": self._signer.address,
            "pid": os.getpid(),
            "network": self._network.name,
            "model": self._manifest.name,
            "model_root": self._manifest.root.hex(),
            "span": str(self._span),
            "state": str(self._state()),
            "device": self._settings.device,
            "dtype": self._settings.dtype,
            "host": self._settings.host,
            "port": self._served.listener.port,
            "peer_id": self._directory.peer_id,
            "price": self._settings.price,
            "sessions": server.sessions,
            "queued": server.info().queued,
            "kv_free": self._served.kv.free,
            "kv_total": self._served.kv.total,
            "prefix_bytes": self._served.prefixes.used,
            "positions_reused": self._served.prefixes.reused,
            "tokens_served": timings.tokens,
            "throughput": self._throughput() / 1000,
            "redeemed": str(self._redeemer.total),
            "challenges_pending": self._opener.pending if self._opener is not None else 0,
            "challenges_answered": self._opener.answered if self._opener is not None else 0,
            "challenges_missed": self._opener.missed if self._opener is not None else 0,
            "row_bytes_lost": self._served.archive.lost,
            "timings": timings.summary(),
            "started_at": self._started,
            "written_at": time(),
        }

    async def _keep_status(self) -> None:
        while True:
            try:
                self._data_dir.write_status(self.status())
            except OSError as error:
                _log.warning("the status cannot be written", error=str(error))
            await asyncio.sleep(STATUS_SECONDS)

    def _state(self) -> NodeState:
        return NodeState.DRAINING if self._served.server.draining else NodeState.ONLINE

    def _throughput(self) -> int:
        return round(1000 * self._served.timings.throughput()) or self._measured

    def _condition(self) -> Condition:
        return Condition(self._state(), self._throughput(), self._served.server.kv_free_tokens)

    def _ready(self, metrics_port: int | None) -> Ready:
        return Ready(
            account=self._signer.address,
            peer_id=self._directory.peer_id,
            host=self._public_host,
            port=self._served.listener.port,
            cert_hash=self._served.listener.cert_hash,
            span=self._span,
            model=self._manifest.name,
            model_root=self._manifest.root,
            addresses=tuple(self._directory.addresses()),
            metrics_port=metrics_port,
        )

    @property
    def _public_host(self) -> str:
        return self._settings.public_host or self._settings.host

    def _template(self) -> Announcement:
        return Announcement(
            network=self._network.name,
            model_root=self._manifest.root,
            span=self._span,
            account=self._signer.address,
            peer_id=self._directory.peer_id,
            host=self._public_host,
            port=self._served.listener.port,
            cert_hash=self._served.listener.cert_hash,
            price_per_token_block=self._settings.price,
            numeric_class=NUMERIC_CLASS[self._settings.dtype],
            wire_dtypes=NUMERIC_CLASS[self._settings.dtype].wires,
            throughput=self._measured,
            kv_free_tokens=0,
            state=NodeState.LOADING,
            issued_at=0,
            expires_at=1,
        )
