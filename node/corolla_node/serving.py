"""The serving part of a node, put together: from a listener to a compute thread, over given blocks and books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from corolla_core.config.tracing import Tracing
from corolla_core.protocol.eip712 import Domain
from corolla_core.protocol.errors import PeerUnreachable
from corolla_core.protocol.ids import address
from corolla_core.protocol.signature import Signer
from corolla_core.swarm.dial import Fallback, dial
from corolla_core.swarm.listener import Listener
from corolla_core.swarm.membership import Membership
from corolla_core.swarm.messages import Endpoint
from corolla_node.archive import Archive
from corolla_node.bookkeeper import Batch, Bookkeeper
from corolla_node.desk import Desk, Policy
from corolla_node.gate import Gate
from corolla_node.kv_pool import KvPool
from corolla_node.links import Links
from corolla_node.metrics import NodeMetrics
from corolla_node.paybook import Paybook
from corolla_node.ports import Clock, Link, LinkHandler, Memory, Tranches
from corolla_node.prefixes import Prefixes
from corolla_node.receipts import Issuer, signing_thread
from corolla_node.scheduler import Scheduler
from corolla_node.server import Offer, Server
from corolla_node.timings import StepTimings

INBOX_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Terms:
    """How a node serves, beyond what it offers."""

    domain: Domain
    policy: Policy = field(default_factory=Policy)
    kv_budget: int = 2**30
    host: str = "127.0.0.1"
    port: int = 0
    expiry_margin: int = 120
    epoch: int = 0


@dataclass(slots=True)
class Serving:
    """A node that takes sessions."""

    server: Server
    handler: Server | Gate
    listener: Listener
    timings: StepTimings
    bookkeeper: Bookkeeper
    kv: KvPool
    prefixes: Prefixes
    archive: Archive
    links: Links


@asynccontextmanager
async def serving(
    offer: Offer,
    terms: Terms,
    *,
    signer: Signer,
    tranches: Tranches,
    memory: Memory,
    archive: Archive,
    write: Callable[[Batch], Awaitable[None]],
    clock: Clock,
    fallback: Fallback | None = None,
    tidy: Callable[[], Awaitable[object]] | None = None,
    membership: Membership | None = None,
    metrics: NodeMetrics | None = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[Serving]:
    """Serve until the block ends; sessions that are left then are ended. Raises NetworkError when the port is taken.

    With a `membership` only those it admits are heard, and only such nodes are sent to.

    Drain first (`server.drain`) to end politely. Everything accepted is on disk when this returns.
    """
    loop = asyncio.get_running_loop()
    scheduler = Scheduler(loop)
    bookkeeper = Bookkeeper(write, tidy=tidy)
    signing = signing_thread()
    prefixes = Prefixes()

    async def dialer(endpoint: Endpoint, /, *, handler: LinkHandler) -> Link:
        if membership is not None and not await membership.among([peer := address(bytes(endpoint.account))]):
            raise PeerUnreachable("it is not attested in this private swarm", peer=peer)
        return await dial(endpoint, identity=signer, handler=handler, fallback=fallback)

    async with asyncio.TaskGroup() as tasks:
        desk = Desk(
            loop=loop,
            policy=terms.policy,
            scheduler=scheduler,
            paybook=Paybook(
                payee=signer.address,
                domain=terms.domain,
                tranches=tranches,
                memory=memory,
                bookkeeper=bookkeeper,
                clock=clock,
                expiry_margin=terms.expiry_margin,
            ),
            bookkeeper=bookkeeper,
            memory=memory,
            archive=archive,
            links=Links(dialer, tasks),
            inbox=KvPool(INBOX_BYTES),
            prefixes=prefixes,
            timings=StepTimings(),
            signing=signing,
            issuer=Issuer(signer, terms.domain.chain_id, terms.epoch, offer.model_root, offer.numeric_class),
            clock=clock,
            metrics=metrics or NodeMetrics(),
            tracing=tracing,
        )
        kv = KvPool(terms.kv_budget, spare=prefixes.limit)
        server = Server(offer, desk, kv=kv, tasks=tasks)
        handler = server if membership is None else Gate(server, membership, tasks)
        listener = Listener(signer, handler, host=terms.host, port=terms.port)
        await listener.start()
        scheduler.start()
        writer = tasks.create_task(bookkeeper.run())
        try:
            yield Serving(server, handler, listener, desk.timings, bookkeeper, kv, prefixes, archive, desk.links)
        finally:
            await server.drain(0)
            await desk.links.close()
            await listener.stop()
            await asyncio.to_thread(scheduler.stop)
            # What the compute thread handed back last is charged before the books are closed.
            await asyncio.sleep(0)
            await asyncio.to_thread(signing.shutdown)
            await asyncio.sleep(0)
            await asyncio.to_thread(server.close)
            archive.close()
            await bookkeeper.stop()
            await writer
