"""A node with everything but a chain and a directory, as a process: real TLS, payments, receipts, rows and books.

`python -m benchmarks.lone_node CHECKPOINT SPAN [--one-by-one]` prints `{"ready": …}` and serves until its stdin closes.
Any tranche exists: one leaf, CAP for this node, of whoever signs for it. With `--tranches FOLDER` those exist that a
client wrote there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Any

import torch
import uvloop
from torch import Tensor

from corolla_core.config import setup_logging
from corolla_core.model.block_range import BlockRange, load_blocks
from corolla_core.model.checkpoint import open_checkpoint
from corolla_core.model.chunks import Chunks
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.ids import Address, Hash32, ModelRoot, TrancheId, address, address_bytes
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.signature import Signer
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import Leaf, SumNode, SumTree
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.protocol.voucher import escrow_domain
from corolla_core.store.store import Store
from corolla_core.swarm.messages import Endpoint
from corolla_node.archive import Archive
from corolla_node.books import Books
from corolla_node.desk import Policy
from corolla_node.ports import Tranches
from corolla_node.server import Offer
from corolla_node.serving import Terms, serving


def node_key(number: int) -> Signer:
    """The key of the node of that number, from 1."""
    return Signer(bytes([number]) * 32)


IDENTITY = node_key(1)
DOMAIN = escrow_domain(1337, address("0x" + "e5" * 20))
CAP = Nectar(10**15)
PRICE = Price(1)
TREE = SumTree([Leaf(IDENTITY.address, CAP)])
CUSTOMERS = 128


def customer_key(number: int) -> Signer:
    """The key of a customer, who pays out of the tranches whose id begins with the same number."""
    return Signer((number + 2).to_bytes(32, "big"))


def tranche_of(number: int, session: bytes) -> TrancheId:
    return TrancheId(number.to_bytes(16, "big") + session)


@dataclass(frozen=True, slots=True)
class _Tranche:
    payer: Address
    signer: Address
    sum_node: SumNode
    expiry: UnixTime


class _AnyTranche:
    async def tranche(self, tranche_id: TrancheId) -> _Tranche:
        payer = customer_key(int.from_bytes(tranche_id[:16], "big")).address
        return _Tranche(payer, payer, TREE.root, UnixTime(int(time()) + 86_400))


class _WrittenTranches:
    """Those of `benchmarks.two_hops`, whose client is its own chain."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def tranche(self, tranche_id: TrancheId) -> _Tranche:
        written = json.loads((self._folder / tranche_id.hex()).read_text())
        payer = address(written["payer"])
        root = SumNode(Hash32(bytes.fromhex(written["root"])), written["sum"])
        return _Tranche(payer, payer, root, UnixTime(written["expiry"]))


class _OneByOne:
    """The same blocks, each session's step by itself."""

    def __init__(self, blocks: BlockRange) -> None:
        self._blocks = blocks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blocks, name)

    def forward_many(self, steps: Sequence[tuple[Tensor, Any]]) -> list[Tensor | Exception]:
        return [self._blocks.forward(*step) for step in steps]


async def serve(
    checkpoint_path: str, span: Span, *, one_by_one: bool, kv_budget: int, signer: Signer, tranches: Tranches
) -> None:
    checkpoint = open_checkpoint(checkpoint_path)
    manifest = Manifest.beside(checkpoint)
    loaded = load_blocks(checkpoint, span)
    loaded.capture()
    if not loaded.batches:
        raise SystemExit("this model computes sessions one by one")
    blocks: Any = _OneByOne(loaded) if one_by_one else loaded
    weights = Chunks(checkpoint, span)
    offer = Offer(signer.address, manifest.root, blocks, manifest.weight_root, NumericClass.FP32, PRICE, weights)
    terms = Terms(DOMAIN, Policy(client_share=1.0, client_sessions=CUSTOMERS, orphan_grace=2.0), kv_budget=kv_budget)
    with tempfile.TemporaryDirectory(prefix="corolla-lone-") as folder:
        async with Store.open(Path(folder) / "node.db") as store:
            books = Books(store, payee=signer.address, model_root=manifest.root, clock=time)
            archive = Archive(Path(folder) / "rows", limit=2**28, clock=time)
            async with serving(
                offer, terms, signer=signer, tranches=tranches, memory=books, archive=archive,
                write=books.write, clock=time,
            ) as served:  # fmt: skip
                ready = {
                    "port": served.listener.port,
                    "cert_hash": served.listener.cert_hash.hex(),
                    "model_root": manifest.root.hex(),
                    "hidden": loaded.hidden_size,
                }
                print(json.dumps({"ready": ready}), flush=True)
                await asyncio.to_thread(sys.stdin.read)
                steps = [asdict(step) for step in served.timings.recent_decode]
                print(json.dumps({"timings": served.timings.summary(), "steps": steps}), flush=True)


@dataclass(frozen=True, slots=True)
class LoneNode:
    """A node that serves, seen from outside."""

    process: Process
    endpoint: Endpoint
    model_root: ModelRoot
    span: Span
    hidden: int


@asynccontextmanager
async def lone_node(
    checkpoint: Path, span: Span, *, one_by_one: bool = False, kv_budget: int = 2**30
) -> AsyncIterator[LoneNode]:
    """A node in a process of its own, gone afterwards."""
    options = ["--kv-budget", str(kv_budget), *(["--one-by-one"] if one_by_one else [])]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.lone_node", str(checkpoint), str(span), *options, stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise SystemExit("the node did not come up")
        ready = json.loads(line)["ready"]
        certificate = Hash32(bytes.fromhex(ready["cert_hash"]))
        endpoint = Endpoint(address_bytes(IDENTITY.address), "127.0.0.1", ready["port"], certificate, "")
        yield LoneNode(process, endpoint, ModelRoot(bytes.fromhex(ready["model_root"])), span, ready["hidden"])
    finally:
        if process.returncode is None:
            async with asyncio.timeout(60):
                await process.communicate(b"")  # more than a pipe holds: who does not read it never sees the end


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lone_node", description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("span", type=Span.parse)
    parser.add_argument("--one-by-one", action="store_true")
    parser.add_argument("--kv-budget", type=int, default=2**30)
    parser.add_argument("--identity", type=int, default=1)
    parser.add_argument("--tranches", type=Path)
    args = parser.parse_args()
    setup_logging("error")
    torch.set_num_threads(1)
    tranches: Tranches = _WrittenTranches(args.tranches) if args.tranches else _AnyTranche()
    signer = node_key(args.identity)
    uvloop.run(
        serve(
            args.checkpoint, args.span, one_by_one=args.one_by_one, kv_budget=args.kv_budget, signer=signer,
            tranches=tranches,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
