"""A client and its nodes in one process: real servers, real blocks of a tiny model, in-memory links that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path
from time import time
from typing import Any

import torch
from node_peers import DOMAIN, MODEL, PRICE, FakeNode, FakeTranche, World, running_node, signer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from corolla.engine import Engine
from corolla.links import Links
from corolla.local import LocalModel
from corolla.peers import Peers, anybody
from corolla.policy import Policy
from corolla.wallet import Wallet, WalletPolicy
from corolla_core.model.block_range import load_blocks
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.manifest import Manifest, build_manifest
from corolla_core.protocol.errors import InsufficientFunds
from corolla_core.protocol.ids import ZERO_HASH, Address, Hash32, ModelRoot, TrancheId
from corolla_core.protocol.receipt import NumericClass, SignedReceipt
from corolla_core.protocol.receipt_chain import link
from corolla_core.protocol.span import Span
from corolla_core.protocol.sumtree import SumTree
from corolla_core.protocol.transcript import Entry, Transcript
from corolla_core.protocol.units import Nectar, UnixTime
from corolla_core.store.client_store import ClientStore
from corolla_core.store.records import ClientTranche
from corolla_core.store.store import Store
from corolla_core.swarm.announcement import Announcement, NodeState
from corolla_core.swarm.membership import Membership, MembersLookup
from corolla_core.swarm.messages import Endpoint

BLOCKS, HIDDEN, CONTEXT = 6, 32, 512
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make_checkpoint(folder: Path, *, eos: int | None = None) -> Checkpoint:
    """A random Llama over bytes, with a tokenizer, a chat template and a manifest. No token ends its texts."""
    torch.manual_seed(7)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE)
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=None,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    checkpoint = open_checkpoint(str(folder))
    (folder / "corolla.manifest.json").write_text(build_manifest(checkpoint, name="tiny").to_json())
    return checkpoint


def greedy_ids(checkpoint: Checkpoint, prompt: Sequence[int], tokens: int) -> tuple[int, ...]:
    """What plain transformers generates."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    with torch.inference_mode():
        text = model.generate(torch.tensor([list(prompt)]), max_new_tokens=tokens, do_sample=False)
    return tuple(text[0, len(prompt) :].tolist())


class FakeOpener:
    """An escrow with a free balance, whose tranches the nodes of a `World` see."""

    def __init__(self, world: World, account: Address, store: Store, *, free: int = 10**12) -> None:
        self.world = world
        self.account = account
        self.free = free
        self.opened: list[ClientTranche] = []
        self._book = ClientStore(store)
        self._store = store

    async def free_balance(self) -> Nectar:
        return Nectar(self.free)

    async def open(self, tree: SumTree, expiry: UnixTime) -> ClientTranche:
        await asyncio.sleep(0)
        if tree.root.sum > self.free:
            raise InsufficientFunds(available=self.free, needed=tree.root.sum)
        self.free -= tree.root.sum
        nonce = len(self.opened)
        identifier = TrancheId(sha256(f"{self.account}/{nonce}/{id(self)}".encode()).digest())
        self.world.chain.known[identifier] = FakeTranche(self.account, self.account, tree.root, expiry)
        tranche = ClientTranche(identifier, self.account, self.account, nonce, tree.leaves, expiry, ZERO_HASH)
        await self._store.run(self._book.record_tranche, tranche)
        self.opened.append(tranche)
        return tranche


class FreeLeases:
    def acquire(self, tranche_id: TrancheId) -> bool:
        return True

    def release_all(self) -> None:
        return None


class FakeDirectory:
    """Announces every living node of a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.prices: dict[Address, int] = {}
        self.throughput: dict[Address, int] = {}
        self.lookups = 0

    async def lookup(self, model_root: ModelRoot, num_blocks: int) -> list[Announcement]:
        await asyncio.sleep(0)
        self.lookups += 1
        now = int(time() * 1000)
        return [
            Announcement(
                network="test",
                model_root=model_root,
                span=node.blocks.span,
                account=node.account,
                peer_id="",
                host=node.endpoint.host,
                port=node.endpoint.port,
                cert_hash=Hash32(node.endpoint.cert_hash),
                price_per_token_block=self.prices.get(node.account, PRICE),
                numeric_class=NumericClass.FP32,
                wire_dtypes=NumericClass.FP32.wires,
                throughput=self.throughput.get(node.account, 100_000),
                kv_free_tokens=100_000,
                state=NodeState.ONLINE,
                issued_at=now,
                expires_at=now + 60_000,
            )
            for node in self.world.nodes.values()
            if not node.dead
        ]


def fast_policy(**changes: Any) -> Policy:
    values: dict[str, Any] = {"patience": 1.0, "open_patience": 0.2, "answer": 3.0, "step": 5.0, "connect": 1.0}
    return Policy(**(values | changes))


class ClientWorld:
    """`engine` generates over `nodes`; `receipts` are those the client kept."""

    def __init__(self, world: World, checkpoint: Checkpoint, stack: contextlib.AsyncExitStack) -> None:
        self.world = world
        self.checkpoint = checkpoint
        self.directory = FakeDirectory(world)
        self.nodes: dict[str, FakeNode] = {}
        self.receipts: list[SignedReceipt] = []
        self._stack = stack
        self.store: Store
        self.opener: FakeOpener
        self.wallet: Wallet
        self.links: Links
        self.peers: Peers
        self.engine: Engine
        self.model: LocalModel

    async def add_node(self, name: str, span: Span, **options: Any) -> FakeNode:
        options.setdefault("blocks", load_blocks(self.checkpoint, span))
        options.setdefault("kv_budget", 10**8)
        node = await self._stack.enter_async_context(running_node(self.world, name, span, **options))
        self.nodes[name] = node
        return node

    async def start(
        self,
        folder: Path,
        *,
        policy: Policy | None = None,
        wallet: WalletPolicy | None = None,
        free: int = 10**12,
        membership: Membership | None = None,
    ) -> None:
        identity = signer("client")
        self.store = Store.open(folder / "client.db")
        self.opener = FakeOpener(self.world, identity.address, self.store, free=free)
        self.wallet = self.make_wallet(wallet)
        self.links = Links(self._dial)
        known = self.directory if membership is None else MembersLookup(self.directory, membership)
        admitted = anybody if membership is None else membership.admitted
        self.peers = Peers(known, MODEL, BLOCKS, rtt=self.links.rtt, admitted=admitted)
        policy = policy or fast_policy()
        manifest = Manifest.beside(self.checkpoint)
        self.model = LocalModel(
            checkpoint=self.checkpoint, manifest=manifest, wire=policy.wire_dtype, local_blocks=policy.local_blocks
        )
        self.engine = Engine(
            model=self.model,
            hidden_size=HIDDEN,
            context=CONTEXT,
            chain_id=1337,
            peers=self.peers,
            links=self.links,
            wallet=self.wallet,
            keep_receipts=self._keep,
            policy=policy,
        )
        self._stack.callback(self.store.close)
        self._stack.callback(self.model.close)
        self._stack.push_async_callback(self.links.close)
        self._stack.push_async_callback(self.engine.close)

    def make_wallet(self, policy: WalletPolicy | None = None) -> Wallet:
        identity = signer("client")
        return Wallet(
            signer=identity,
            payer=identity.address,
            domain=DOMAIN,
            book=ClientStore(self.store),
            runner=self.store,
            opener=self.opener,
            leases=FreeLeases(),
            clock=time,
            policy=policy,
        )

    def kill(self, name: str) -> None:
        self.world.kill(self.nodes[name])

    def receipts_seen(self, name: str) -> int:
        """How many receipts of a node its disk holds."""
        return len(self.nodes[name].disk.receipts)

    def charged(self, name: str) -> int:
        """What a node has charged over all tranches."""
        node = self.nodes[name]
        return sum(node.desk.paybook.account(t.tranche_id).charged for t in self._tranches_of(node))

    def paid(self, name: str) -> int:
        """What vouchers promise a node, over all tranches."""
        node = self.nodes[name]
        return sum(node.desk.paybook.account(t.tranche_id).paid for t in self._tranches_of(node))

    def _tranches_of(self, node: FakeNode) -> list[ClientTranche]:
        return [t for t in self.opener.opened if t.tranche_id in node.desk.paybook._pages]

    async def _dial(self, endpoint: Endpoint, /, *, handler: Any) -> Any:
        await asyncio.sleep(0)
        pipe: Any = self.world.connect(signer("client").address, handler, endpoint)
        pipe.rtt = 0.001
        return pipe

    async def _keep(self, receipts: Sequence[SignedReceipt]) -> None:
        self.receipts += receipts


@contextlib.asynccontextmanager
async def client_world(
    checkpoint: Checkpoint, folder: Path, nodes: dict[str, Span], **options: Any
) -> AsyncIterator[ClientWorld]:
    """A started client among these nodes."""
    torch.set_num_threads(1)
    async with contextlib.AsyncExitStack() as stack:
        made = ClientWorld(World(), checkpoint, stack)
        for name, span in nodes.items():
            await made.add_node(name, span)
        await made.start(folder, **options)
        yield made


def transcript_of(node: FakeNode) -> Transcript:
    """Its one session, from the receipts it signed and the rows it keeps."""
    (linked,) = [one for one in link(node.disk.receipts) if one.key.signer == node.account]
    entries = []
    for signed in linked.chain:
        rows = node.disk.archive.read(signed.receipt.hash(), node.disk.archive.recent(signed.receipt.hash()))
        entries.append(Entry(signed, b"".join(rows.inputs), b"".join(rows.outputs), rows.reorderings))
    return Transcript(tuple(entries))
