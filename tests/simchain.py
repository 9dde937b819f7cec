"""A chain in memory, with a pool that loses things, other users of one's key, lost answers and reorganisations.

It speaks the JSON-RPC our chain adapter speaks, in Geth's words. Contracts do not exist: a transaction to `LOGGER`
leaves one log with the transaction's data, one to `REVERTER` fails, any other just happens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from eth_account import Account
from eth_account.typed_transactions import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from corolla_core.chain.network import Network
from corolla_core.chain.rpc import Clock
from corolla_core.protocol.ids import Address, address
from corolla_core.protocol.signature import Signer

CHAIN_ID = 777
LOGGER = address(b"\xaa" * 20)
REVERTER = address(b"\xbb" * 20)
OTHER = address(b"\xcc" * 20)
GWEI = 10**9


def network(chain_id: int = CHAIN_ID) -> Network:
    return Network("sim", chain_id, "http://sim", LOGGER, LOGGER, LOGGER, LOGGER)


@dataclass(frozen=True)
class Tx:
    hash: str
    sender: Address
    nonce: int
    to: Address | None
    data: bytes
    max_fee: int
    tip: int


@dataclass(frozen=True)
class Block:
    number: int
    hash: str
    parent: str
    timestamp: int
    base_fee: int
    txs: tuple[Tx, ...]


@dataclass
class SimChain:
    """`before(method)` runs before each request is served and `after(method)` before its answer leaves; either may
    raise ConnectionError."""

    base_fee: int = GWEI
    before: Callable[[str], None] = lambda method: None
    after: Callable[[str], None] = lambda method: None
    tick: Callable[[], None] = lambda: None
    time: float = 0.0
    blocks: list[Block] = field(default_factory=list)
    pool: dict[tuple[Address, int], Tx] = field(default_factory=dict)
    salt: int = 0

    def __post_init__(self) -> None:
        self.mine(empty=True)

    # ---- what happens on it ----

    def mine(self, *, empty: bool = False, at_most: int = 1000) -> Block:
        txs: list[Tx] = []
        while not empty and len(txs) < at_most:
            ready = [
                t for t in self.pool.values() if t.nonce == self._count(t.sender, txs) and t.max_fee >= self.base_fee
            ]
            if not ready:
                break
            best = max(ready, key=lambda t: (t.tip, t.hash))
            del self.pool[best.sender, best.nonce]
            txs.append(best)
        number = len(self.blocks)
        parent = self.blocks[-1].hash if self.blocks else "0x" + "00" * 32
        self.salt += 1
        digest = "0x" + keccak(f"{number} {parent} {self.salt} {[t.hash for t in txs]}".encode()).hex()
        block = Block(number, digest, parent, 1_800_000_000 + 12 * number, self.base_fee, tuple(txs))
        self.blocks.append(block)
        for key in [k for k in self.pool if k[1] < self._count(k[0], [])]:
            del self.pool[key]
        return block

    def reorganise(self, depth: int, *, keep: bool = True) -> None:
        """Forget the newest blocks; their transactions go back to the pool, or are lost."""
        depth = min(depth, len(self.blocks) - 1)
        dropped = self.blocks[len(self.blocks) - depth :]
        del self.blocks[len(self.blocks) - depth :]
        if keep:
            for tx in (t for b in dropped for t in b.txs):
                self.pool.setdefault((tx.sender, tx.nonce), tx)

    def executed(self) -> Counter[bytes]:
        """How often each piece of data was executed."""
        return Counter(tx.data for block in self.blocks for tx in block.txs)

    def intrude(self, signer: Signer, nonce: int, data: bytes, *, max_fee: int, tip: int, to: Address = OTHER) -> None:
        """Another process with the same key sends."""
        fields = {"type": 2, "chainId": CHAIN_ID, "nonce": nonce, "gas": 21000, "to": to, "value": 0, "data": data}
        fields |= {"maxFeePerGas": max_fee, "maxPriorityFeePerGas": tip}
        self._admit(bytes(Account.sign_transaction(fields, signer.secret).raw_transaction))

    # ---- the endpoint ----

    async def make_request(self, method: Any, params: Any) -> Any:
        await asyncio.sleep(0)  # as on a network, others run meanwhile
        self.before(method)
        try:
            answer = {"jsonrpc": "2.0", "id": 1, "result": getattr(self, method)(*params)}
        except RefusedError as refused:
            answer = {"jsonrpc": "2.0", "id": 1, "error": {"code": refused.code, "message": str(refused)}}
        self.after(method)
        return answer

    def clock(self) -> Clock:
        async def sleep(seconds: float) -> None:
            self.time += seconds
            self.tick()
            await asyncio.sleep(0)

        return Clock(lambda: self.time, sleep)

    def eth_chainId(self) -> str:
        return hex(CHAIN_ID)

    def web3_clientVersion(self) -> str:
        return "Sim/v1"

    def eth_blockNumber(self) -> str:
        return hex(len(self.blocks) - 1)

    def eth_getBalance(self, account: str, tag: str) -> str:
        return hex(10**18)

    def eth_maxPriorityFeePerGas(self) -> str:
        return hex(GWEI)

    def eth_estimateGas(self, message: dict[str, str]) -> str:
        self.eth_call(message, "latest")
        return hex(21_000)

    def eth_call(self, message: dict[str, str], tag: str) -> str:
        if message.get("to") == REVERTER:
            raise RefusedError("execution reverted: never", 3)
        return "0x"

    def eth_getTransactionCount(self, account: str, tag: str) -> str:
        sender = address(account)
        if tag == "pending":
            count = self._count(sender, [])
            while (sender, count) in self.pool:
                count += 1
            return hex(count)
        top = len(self.blocks) - 1 if tag == "latest" else int(tag, 16)
        return hex(sum(t.sender == sender for b in self.blocks[: top + 1] for t in b.txs))

    def eth_sendRawTransaction(self, raw: str) -> str:
        return self._admit(bytes.fromhex(raw[2:]))

    def eth_getTransactionByHash(self, tx_hash: str) -> dict[str, str] | None:
        known = [t for t in self.pool.values() if t.hash == tx_hash] or [
            t for b in self.blocks for t in b.txs if t.hash == tx_hash
        ]
        return {"hash": tx_hash, "nonce": hex(known[0].nonce)} if known else None

    def eth_getTransactionReceipt(self, tx_hash: str) -> dict[str, Any] | None:
        for block in self.blocks:
            for tx in block.txs:
                if tx.hash == tx_hash:
                    return {
                        "transactionHash": tx_hash,
                        "blockNumber": hex(block.number),
                        "blockHash": block.hash,
                        "gasUsed": hex(21_000),
                        "effectiveGasPrice": hex(block.base_fee + tx.tip),
                        "contractAddress": None,
                        "status": "0x0" if tx.to == REVERTER else "0x1",
                        "logs": [log for log in self._logs(block) if log["transactionHash"] == tx_hash],
                    }
        return None

    def eth_getBlockByNumber(self, tag: str, _full: bool) -> dict[str, Any] | None:
        number = len(self.blocks) - 1 if tag == "latest" else int(tag, 16)
        if number >= len(self.blocks):
            return None
        block = self.blocks[number]
        return {
            "number": hex(number),
            "hash": block.hash,
            "parentHash": block.parent,
            "timestamp": hex(block.timestamp),
            "baseFeePerGas": hex(block.base_fee),
        }

    def eth_getLogs(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        low, high = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        return [log for block in self.blocks[low : high + 1] for log in self._logs(block)]

    # ---- internals ----

    def _logs(self, block: Block) -> list[dict[str, Any]]:
        """Data sent to `LOGGER` is a count of topics, the topics, and the log's data."""
        logs = []
        for tx in block.txs:
            if tx.to == LOGGER:
                topics = [tx.data[1 + 32 * i : 33 + 32 * i] for i in range(tx.data[0])]
                logs.append(
                    {
                        "address": LOGGER,
                        "topics": ["0x" + topic.hex() for topic in topics],
                        "data": "0x" + tx.data[1 + 32 * tx.data[0] :].hex(),
                        "blockNumber": hex(block.number),
                        "blockHash": block.hash,
                        "transactionHash": tx.hash,
                        "logIndex": hex(len(logs)),
                    }
                )
        return logs

    def _count(self, sender: Address, more: list[Tx]) -> int:
        return sum(t.sender == sender for b in self.blocks for t in b.txs) + sum(t.sender == sender for t in more)

    def _admit(self, raw: bytes) -> str:
        tx = _parse(raw)
        if self.eth_getTransactionByHash(tx.hash) is not None and (tx.sender, tx.nonce) in self.pool:
            raise RefusedError("already known")
        if tx.nonce < self._count(tx.sender, []):
            raise RefusedError(f"nonce too low: next nonce {self._count(tx.sender, [])}, tx nonce {tx.nonce}")
        waiting = self.pool.get((tx.sender, tx.nonce))
        if waiting is not None and (tx.max_fee * 10 < waiting.max_fee * 11 or tx.tip * 10 < waiting.tip * 11):
            raise RefusedError("replacement transaction underpriced")
        if tx.max_fee < self.base_fee // 2:
            raise RefusedError("transaction underpriced: gas fee cap below minimum")
        self.pool[tx.sender, tx.nonce] = tx
        return tx.hash


class RefusedError(Exception):
    def __init__(self, message: str, code: int = -32000) -> None:
        super().__init__(message)
        self.code = code


def _parse(raw: bytes) -> Tx:
    fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    return Tx(
        hash="0x" + keccak(raw).hex(),
        sender=address(Account.recover_transaction(raw)),
        nonce=fields["nonce"],
        to=address(bytes(fields["to"])) if fields["to"] else None,
        data=bytes(fields["data"]),
        max_fee=fields["maxFeePerGas"],
        tip=fields["maxPriorityFeePerGas"],
    )


class Weather:
    """Random faults and events, from a seed."""

    def __init__(self, sim: SimChain, signer: Signer, rng: Random, *, calm_after: float, deepest_reorg: int) -> None:
        self.sim, self.signer, self.rng = sim, signer, rng
        self.calm_after, self.deepest_reorg = calm_after, deepest_reorg
        self.intruders = 0
        self.down_until = 0.0
        sim.before, sim.after, sim.tick = self.before, self.after, self.tick

    @property
    def calm(self) -> bool:
        return self.sim.time >= self.calm_after

    def before(self, method: str) -> None:
        if self.calm:
            return
        if self.sim.time < self.down_until or self.rng.random() < 0.1:
            raise ConnectionError("request lost")

    def after(self, method: str) -> None:
        if not self.calm and self.rng.random() < 0.15:
            raise ConnectionError("answer lost")

    def tick(self) -> None:
        rng, sim = self.rng, self.sim
        if self.calm:
            sim.base_fee = GWEI
            sim.mine()
            return
        event = rng.randrange(10)
        if event < 3:
            sim.mine(at_most=rng.choice([1, 2, 1000]))
        elif event == 3 and sim.pool:
            del sim.pool[rng.choice(sorted(sim.pool))]
        elif event == 4 and self.intruders < 6:
            self._intrude()
        elif event == 5:
            sim.base_fee = rng.choice([GWEI // 2, GWEI, 4 * GWEI, 9 * GWEI])
        elif event == 6 and self.deepest_reorg:
            sim.reorganise(rng.randint(1, self.deepest_reorg))
            sim.mine(empty=True)
        elif event == 7 and rng.random() < 0.3:
            self.down_until = sim.time + rng.choice([1.0, 10.0])

    def _intrude(self) -> None:
        count = int(self.sim.eth_getTransactionCount(self.signer.address, self.rng.choice(["latest", "pending"])), 16)
        fee = self.rng.choice([3, 5, 50]) * self.sim.base_fee
        self.intruders += 1
        with contextlib.suppress(RefusedError):
            self.sim.intrude(self.signer, count, b"intruder", max_fee=fee, tip=fee // 2)
