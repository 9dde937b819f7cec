"""An endpoint may answer anything: what comes of it is a value or a typed error, in bounded time."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from simchain import LOGGER, OTHER, SimChain, network

from corolla_core.chain.account import Call
from corolla_core.chain.escrow import Escrow
from corolla_core.chain.indexer import Indexer
from corolla_core.chain.models import Models
from corolla_core.chain.registry import Registry
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import Patience, TransactionSender
from corolla_core.protocol.errors import CorollaError
from corolla_core.protocol.ids import TrancheId
from corolla_core.protocol.signature import Signer

SIGNER = Signer(b"\x31" * 32)

hexes = st.binary(max_size=200).map(lambda raw: "0x" + raw.hex())
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), hexes)
names = st.sampled_from(
    [
        *("hash", "number", "status", "logs", "topics", "data", "address", "blockNumber", "blockHash", "gasUsed"),
        *("timestamp", "baseFeePerGas", "logIndex", "transactionHash", "code", "message", "result", "error"),
    ]
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=8), max_leaves=12
)
replies = st.one_of(
    values.map(lambda value: {"result": value}),
    values.map(lambda value: {"error": value}),
    st.builds(
        lambda code, text, data: {"error": {"code": code, "message": text, "data": data}}, leaves, leaves, values
    ),
    values,
)


class Liar(SimChain):
    """An endpoint that is honest about some things."""

    def __init__(self, lies: dict[str, Any]) -> None:
        super().__init__()
        self.lies = lies

    async def make_request(self, method: Any, params: Any) -> Any:
        if method in self.lies:
            return self.lies[method]
        return await super().make_request(method, params)


METHODS = [name for name in dir(SimChain) if name.startswith("eth_")]


@settings(max_examples=100, deadline=None)
@given(lies=st.dictionaries(st.sampled_from(METHODS), replies, min_size=1, max_size=4))
def test_whatever_an_endpoint_answers_is_a_value_or_a_typed_error(lies: dict[str, Any]) -> None:
    liar = Liar(lies)
    liar.tick = lambda: None if len(liar.blocks) > 20 else liar.mine() and None

    async def everything() -> None:
        chain = Chain(network(), transport=liar, deadline=3.0, clock=liar.clock())
        sender = TransactionSender(chain, SIGNER, patience=Patience(mined=5.0, bump=2.0, replaced_depth=1))
        escrow = Escrow(chain, sender)
        for work in (
            chain.block_number(),
            chain.now(),
            chain.balance(SIGNER.address),
            escrow.tranche(TrancheId(bytes(32))),
            Registry(chain).node(OTHER),
            Models(chain).latest("m"),
            sender.send(Call(OTHER, b"x")),
            sender.send(Call(LOGGER, b"\x00log", gas=50_000)),
            Indexer(chain).poll(),
        ):
            try:
                await work
            except CorollaError:
                continue

    asyncio.run(everything())
    assert liar.time < 200
    if "eth_getTransactionByHash" not in lies:  # who denies having a transaction can make us send another
        assert all(count <= 1 for count in liar.executed().values())
