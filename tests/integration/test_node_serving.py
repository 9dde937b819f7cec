"""Two real nodes on real TLS connections over real transformer blocks equal the whole model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import pytest
import torch
from node_peers import DOMAIN, FakeChain, FakeClient, FakeDisk, World, signer
from transformers import AutoModelForCausalLM, LlamaConfig

from corolla_core.model.block_range import load_blocks
from corolla_core.model.checkpoint import Checkpoint, open_checkpoint
from corolla_core.model.chunks import Chunks
from corolla_core.model.front import load_front
from corolla_core.model.head import load_head
from corolla_core.model.manifest import Manifest, build_manifest
from corolla_core.model.tensors import from_wire
from corolla_core.protocol.errors import Draining, PeerUnreachable
from corolla_core.protocol.ids import address_bytes
from corolla_core.protocol.pricing import Price
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.swarm.dial import dial
from corolla_core.swarm.messages import Endpoint, Result, Rewire, Rewired
from corolla_node.desk import Policy
from corolla_node.server import Offer
from corolla_node.serving import Serving, Terms, serving

pytestmark = pytest.mark.anyio
PROMPT = [[3, 14, 15, 92, 65, 35, 89, 79]]
NEW_TOKENS = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    folder: Path = tmp_path_factory.mktemp("llama")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return open_checkpoint(str(folder))


@pytest.fixture(scope="module")
def manifest(checkpoint: Checkpoint) -> Manifest:
    return build_manifest(checkpoint)


@pytest.fixture(scope="module")
def greedy(checkpoint: Checkpoint) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
    with torch.inference_mode():
        text = model.generate(torch.tensor(PROMPT), max_new_tokens=NEW_TOKENS, do_sample=False)
    tokens: list[int] = text[0, len(PROMPT[0]) :].tolist()
    return tokens


class RealNode:
    """Looks like `node_peers.FakeNode` to the client."""

    def __init__(self, name: str, blocks: Any, served: Serving) -> None:
        self.account = signer(name).address
        self.blocks = blocks
        self.served = served
        listener = served.listener
        self.endpoint = Endpoint(address_bytes(self.account), "127.0.0.1", listener.port, listener.cert_hash, "")


@asynccontextmanager
async def node(
    name: str, span: Span, chain: FakeChain, checkpoint: Checkpoint, manifest: Manifest
) -> AsyncIterator[RealNode]:
    blocks = load_blocks(checkpoint, span, manifest=manifest)
    identity, disk = signer(name), FakeDisk()
    weights = Chunks(checkpoint, span)
    offer = Offer(identity.address, manifest.root, blocks, manifest.weight_root, NumericClass.FP32, Price(10), weights)
    terms = Terms(DOMAIN, policy=Policy(orphan_grace=0.5))
    async with serving(
        offer, terms, signer=identity, tranches=chain, memory=disk, archive=disk.archive, write=disk.write, clock=time
    ) as served:
        yield RealNode(name, blocks, served)


class RealClient(FakeClient):
    """Dials for real and generates greedily."""

    def __init__(self, chain: FakeChain, nodes: list[RealNode], manifest: Manifest) -> None:
        world = World()
        world.chain = chain
        super().__init__(world, nodes, dialed=False)  # type: ignore[arg-type]
        self.manifest = manifest

    async def connect(self) -> None:
        self.pipes = [await dial(n.endpoint, identity=self.signer, handler=self) for n in self.nodes]

    async def hidden(self) -> torch.Tensor:
        message, payload = await self.expect(Result)
        return from_wire(message.tensor.dtype, message.tensor.shape, payload, expect_shape=(None, None, 32)).clone()


async def test_greedy_text_over_two_nodes_is_the_whole_models_and_survives_a_lost_node(
    checkpoint: Checkpoint, manifest: Manifest, greedy: list[int]
) -> None:
    chain = FakeChain()
    front, head = load_front(checkpoint), load_head(checkpoint)
    first, second = Span(0, 3), Span(3, 4)
    async with (
        node("first", first, chain, checkpoint, manifest) as a,
        node("standby", Span(2, 4), chain, checkpoint, manifest) as standby,
    ):
        text: list[int] = []
        async with node("second", second, chain, checkpoint, manifest) as b:
            client = RealClient(chain, [a, b], manifest)
            await client.connect()
            await client.open(model_root=manifest.root)
            client.pay(10**6)
            ids, position = torch.tensor(PROMPT), 0
            for number in range(1, NEW_TOKENS // 2):
                client.step(number, position, front.embed(ids, position=position))
                token = int(head.logits(await client.hidden())[0, -1].argmax())
                position += ids.shape[1]
                ids = torch.tensor([[token]])
                text.append(token)
        # The second node said goodbye; the first reports it lost at once, and the standby takes over with part of its
        # own span.
        error, _ = await client.expect_fault(seconds=2)
        assert isinstance(error, Draining)
        error, _ = await client.expect_fault(seconds=2)
        assert isinstance(error, PeerUnreachable)
        assert error.peer == b.account
        other = RealClient(chain, [standby], manifest)
        await other.connect()
        await other.open(
            model_root=manifest.root, session=client.session, upstream=address_bytes(a.account), start=3, end=4
        )
        other.pay(10**6)
        client.pipes[0].send(Rewire(client.session, standby.endpoint, position))
        await client.expect(Rewired)
        for number in range(NEW_TOKENS // 2, NEW_TOKENS + 1):
            client.step(number, position, front.embed(ids, position=position))
            token = int(head.logits(await other.hidden())[0, -1].argmax())
            position += 1
            ids = torch.tensor([[token]])
            text.append(token)
        assert text == greedy
        for pipe in (*client.pipes, *other.pipes):
            await pipe.close()


async def test_every_step_is_timed_part_by_part(checkpoint: Checkpoint, manifest: Manifest) -> None:
    chain = FakeChain()
    async with node("timed", Span(0, 4), chain, checkpoint, manifest) as a:
        client = RealClient(chain, [a], manifest)
        await client.connect()
        await client.open(model_root=manifest.root, max_tokens=400)
        client.pay(10**6)
        for position in range(30):
            client.step(position + 1, position, torch.randn(1, 1, 32))
            await client.hidden()
        summary: Any = a.served.timings.summary()
        medians = summary["decode"]["median_ms"]
        assert summary["decode"]["steps"] == 30
        assert medians["compute"] > 0
        assert medians["overhead"] > 0
        for pipe in client.pipes:
            await pipe.close()
    await asyncio.sleep(0)
