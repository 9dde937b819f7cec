"""A client and two paid nodes on loopback, without chain and directory: what a token costs between them.

`python -m benchmarks.two_hops CHECKPOINT` prints `{"ready": …}`; then each line `{"prompt": text, "tokens": n}` on
stdin is answered with `{"ids": […], "decode": seconds a token}`, and the end of stdin with the moments of every decoded
token, of which `benchmarks.hop` makes a table. All are by `perf_counter`, one clock for all processes of a machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import uvloop

from benchmarks.lone_node import DOMAIN, PRICE, customer_key, node_key
from corolla.devnet.split import split_evenly
from corolla.engine import Engine
from corolla.links import Link, LinkHandler, Links
from corolla.local import LocalModel, load_local
from corolla.peers import Peers
from corolla.wallet import Wallet
from corolla_core.config import setup_logging
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.sampling import SamplingParams
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, ModelRoot, TrancheId, address_bytes
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import SumTree
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.client_store import ClientStore
from corolla_core.store.records import ClientTranche
from corolla_core.store.store import Store
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.dial import dial
from corolla_core.swarm.messages import AnyMessage, Endpoint, Result, Step

NODES = 2


class _Folder:
    """An escrow that opens every tranche and lets the nodes see it in a folder."""

    def __init__(self, folder: Path, payer: Address, store: Store) -> None:
        self._folder = folder
        self._payer = payer
        self._store = store
        self._book = ClientStore(store)
        self._nonce = 0

    async def free_balance(self) -> Nectar:
        return Nectar(10**18)

    async def open(self, tree: SumTree, expiry: UnixTime) -> ClientTranche:
        self._nonce += 1
        identifier = TrancheId(sha256(self._nonce.to_bytes(8, "big")).digest())
        seen = {"payer": self._payer, "root": tree.root.hash.hex(), "sum": tree.root.sum, "expiry": expiry}
        (self._folder / identifier.hex()).write_text(json.dumps(seen))
        tranche = ClientTranche(identifier, self._payer, self._payer, self._nonce, tree.leaves, expiry, ZERO_HASH)
        await self._store.run(self._book.record_tranche, tranche)
        return tranche


class _FreeLeases:
    def acquire(self, tranche_id: TrancheId) -> bool:
        return True

    def release_all(self) -> None:
        return None


class _Directory:
    def __init__(self, nodes: Sequence[tuple[Span, Endpoint]]) -> None:
        self._nodes = nodes

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        now = int(time.time() * 1000)
        return [
            Announcement(
                network="bench",
                model_root=model_root,
                span=span,
                account=Address(node_key(number).address),
                peer_id="",
                host=endpoint.host,
                port=endpoint.port,
                cert_hash=Hash32(endpoint.cert_hash),
                price_per_token_block=PRICE.per_token_block,
                numeric_class=NumericClass.FP32,
                wire_dtypes=("float32",),
                throughput=100_000,
                kv_free_tokens=100_000,
                state=NodeState.ONLINE,
                issued_at=now,
                expires_at=now + 120_000,
            )
            for number, (span, endpoint) in enumerate(self._nodes, 1)
        ]


Moment = tuple[bytes, int]
"""A step of a session."""


class _Stamps:
    """When the client's one-position steps left and their results came, and when its compute thread worked."""

    def __init__(self) -> None:
        self.left: dict[Moment, float] = {}
        self.came: dict[Moment, float] = {}
        self.work: list[tuple[float, float]] = []


class _StampedLink:
    def __init__(self, link: Link, stamps: _Stamps) -> None:
        self._link = link
        self._stamps = stamps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def send(self, message: AnyMessage, payload: Any = None) -> None:
        if isinstance(message, Step) and message.tensor.shape[1] == 1:
            self._stamps.left[message.session, message.step] = perf_counter()
        self._link.send(message, payload)


class _StampedHandler:
    def __init__(self, handler: LinkHandler, stamps: _Stamps) -> None:
        self._handler = handler
        self._stamps = stamps

    def on_message(self, conn: Link, message: AnyMessage, payload: memoryview) -> None:
        if isinstance(message, Result) and (message.session, message.step) in self._stamps.left:
            self._stamps.came[message.session, message.step] = perf_counter()
        self._handler.on_message(conn, message, payload)

    def on_lost(self, conn: Link, error: Any) -> None:
        self._handler.on_lost(conn, error)


class _StampedModel:
    def __init__(self, model: LocalModel, stamps: _Stamps) -> None:
        self._model = model
        self._stamps = stamps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    async def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def stamped() -> Any:
            began = perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self._stamps.work.append((began, perf_counter()))

        return await self._model.run(stamped)


class _Node:
    """A node in a process of its own."""

    def __init__(self, process: Process, span: Span, number: int) -> None:
        self._process = process
        self.span = span
        self._number = number

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, checkpoint: Path, span: Span, number: int, folder: Path) -> AsyncIterator[_Node]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.lone_node", str(checkpoint), str(span), f"--identity={number}",
            f"--tranches={folder}", stdin=PIPE, stdout=PIPE, limit=2**24,
        )  # fmt: skip
        try:
            yield cls(process, span, number)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def endpoint(self) -> Endpoint:
        """Where it is, once it serves."""
        ready = (await self._line())["ready"]
        account = address_bytes(node_key(self._number).address)
        return Endpoint(account, "127.0.0.1", ready["port"], bytes.fromhex(ready["cert_hash"]), "")

    async def steps(self) -> list[dict[str, float]]:
        """The timings of its last one-position steps; it ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        steps: list[dict[str, float]] = (await self._line())["steps"]
        return steps

    async def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("a node did not come up")
        said: dict[str, Any] = json.loads(line)
        return said


async def serve(checkpoint: Path, folder: Path) -> None:
    signer = customer_key(0)
    stamps = _Stamps()
    async with contextlib.AsyncExitStack() as stack:
        spans = split_evenly(open_checkpoint(str(checkpoint)).num_blocks, NODES)
        starting = [_Node.start(checkpoint, span, number, folder) for number, span in enumerate(spans, 1)]
        nodes = [await stack.enter_async_context(each) for each in starting]
        model = load_local(str(checkpoint))
        stack.callback(model.close)
        store = await stack.enter_async_context(Store.open(folder / "client.db"))

        async def connect(endpoint: Endpoint, /, *, handler: LinkHandler) -> Any:
            link = await dial(endpoint, identity=signer, handler=_StampedHandler(handler, stamps))
            return _StampedLink(link, stamps)

        links = Links(connect)
        stack.push_async_callback(links.close)
        directory = _Directory([(node.span, await node.endpoint()) for node in nodes])
        wallet = Wallet(
            signer=signer,
            payer=signer.address,
            domain=DOMAIN,
            book=ClientStore(store),
            runner=store,
            opener=_Folder(folder, signer.address, store),
            leases=_FreeLeases(),
            clock=time.time,
        )

        async def keep(receipts: Sequence[object]) -> None: ...

        engine = Engine(
            model=_StampedModel(model, stamps),
            hidden_size=model.hidden_size,
            context=model.context or None,
            chain_id=DOMAIN.chain_id,
            peers=Peers(directory, model.root, model.num_blocks, rtt=links.rtt),
            links=links,
            wallet=wallet,
            keep_receipts=keep,
            weight_root=model.weight_root,
        )
        stack.push_async_callback(engine.close)
        print(json.dumps({"ready": {}}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            done = await engine.stream(asked["prompt"], SamplingParams(max_tokens=asked["tokens"])).read()
            print(json.dumps({"decode": 1 / done.usage.tokens_per_second, "ids": done.token_ids}), flush=True)
        await engine.close()
        steps = [await node.steps() for node in nodes]
        left, came = [*stamps.left.values()], [*stamps.came.values()]
        print(json.dumps({"left": left, "came": came, "work": stamps.work, "nodes": steps}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_hops", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    args = parser.parse_args()
    setup_logging("error")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="corolla-hops-") as folder:
        uvloop.run(serve(args.checkpoint, Path(folder)))


if __name__ == "__main__":
    main()
