"""The reputation oracle: scores of nodes that validators commit to, reveal, and anyone settles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from corolla_core.chain.contract import Contract
from corolla_core.chain.mined import Mined
from corolla_core.chain.rpc import Chain, hex_int
from corolla_core.chain.sender import TransactionSender
from corolla_core.protocol.errors import ConfigError, InvalidInput
from corolla_core.protocol.ids import Address, Hash32, address_bytes
from corolla_core.protocol.reputation import SCORE_ONE
from corolla_core.protocol.units import Nectar, UnixTime

#: How many nodes one reveal or settlement may name.
MAX_NODES = 64
#: How many scores are read in one call.
_MOST_READ = 256


class Phase(IntEnum):
    COMMIT = 0
    REVEAL = 1


@dataclass(frozen=True, slots=True)
class EpochNow:
    """The current epoch, its phase, and when that phase ends."""

    epoch: int
    phase: Phase
    until: UnixTime


@dataclass(frozen=True, slots=True)
class NodeScore:
    """What a majority of the validators' stake said of a node, in 1/65535, and in which epoch."""

    score: int
    epoch: int

    @property
    def fraction(self) -> float:
        return self.score / SCORE_ONE


@dataclass(frozen=True, slots=True)
class Settlement:
    """All that was last settled of a node; `rank` is the mean of its scores clipped above the median."""

    score: int
    rank: int
    ratings: int
    clipped: int
    epoch: int
    stake: Nectar


@dataclass(frozen=True, slots=True)
class Seat:
    """A validator's last commitment; epoch 0 when it never made one."""

    epoch: int
    commitment: Hash32
    revealed: bool


@dataclass(frozen=True, slots=True)
class Ratings:
    """What was revealed of a node in an epoch and is not settled yet."""

    count: int
    stake: Nectar


@dataclass(frozen=True, slots=True)
class OracleParameters:
    """`IReputationOracle.Parameters`. Seconds, 1/65535, and base units."""

    commit_seconds: int
    reveal_seconds: int
    max_above: int
    min_ratings: int
    min_validator_stake: Nectar
    min_total_stake: Nectar


@dataclass(frozen=True, slots=True)
class ScoreSheet:
    """A validator's scores of an epoch, in 1/65535: up to 64 nodes in ascending order, and the salt that hides them."""

    nodes: tuple[Address, ...]
    scores: tuple[int, ...]
    salt: Hash32

    @classmethod
    def of(cls, scores: Mapping[Address, int], *, salt: bytes) -> ScoreSheet:
        """Raises InvalidInput for no node or too many, a score out of range, or a salt that is not 32 bytes."""
        nodes = tuple(sorted(scores, key=address_bytes))
        if not 0 < len(nodes) <= MAX_NODES or len(salt) != 32:
            raise InvalidInput(f"a sheet has 1 to {MAX_NODES} nodes and 32 bytes of salt")
        for node, score in scores.items():
            if type(score) is not int or not 0 <= score <= SCORE_ONE:
                raise InvalidInput(f"not a score of {node}: {score!r}")
        return cls(nodes, tuple(scores[node] for node in nodes), Hash32(salt))

    def commitment(self, epoch: int, validator: Address) -> Hash32:
        """`keccak(abi.encode(epoch, validator, keccak(abi.encode(nodes, scores)), salt))`."""
        inner = keccak(encode(["address[]", "uint16[]"], [self.nodes, self.scores]))
        words = encode(["uint64", "address", "bytes32", "bytes32"], [epoch, validator, inner, self.salt])
        return Hash32(keccak(words))


class Reputation(Contract):
    """Writes raise TransactionReverted with the contract's reason. ConfigError when the network has no oracle."""

    abi_name = "ReputationOracle"

    def __init__(self, chain: Chain, sender: TransactionSender | None = None) -> None:
        if not chain.network.has_reputation:
            raise ConfigError(f"network {chain.network.name} has no reputation oracle")
        super().__init__(chain, chain.network.reputation, sender)

    async def commit(self, sheet: ScoreSheet, *, epoch: int | None = None) -> int:
        """Commit to the sender's scores of `epoch`, the current one if unset; returns it. Keep the sheet, or it is
        missed. Mined in another epoch's commit phase than meant it can never be revealed: `seat` then shows it."""
        meant = (await self.now()).epoch if epoch is None else epoch
        await self._send("commit", sheet.commitment(meant, self.sender.address))
        return meant

    async def reveal(self, sheet: ScoreSheet) -> Mined:
        return await self._send("reveal", sheet.nodes, sheet.scores, sheet.salt)

    async def settle(self, epoch: int, nodes: Sequence[Address]) -> Mined:
        """Settle up to 64 nodes of an epoch that is over."""
        return await self._send("settle", epoch, list(nodes))

    async def settle_gas(self, epoch: int, nodes: Sequence[Address]) -> int:
        """An estimate of the gas that `settle` takes. Raises TransactionReverted if it would fail, RpcRefused where it
        is more than a block holds."""
        data = self.abi.encode("settle", epoch, list(nodes))
        message = {"from": self.sender.address, "to": self.address, "data": "0x" + data.hex()}
        return hex_int(await self.chain.request("eth_estimateGas", message))

    async def scores(self, nodes: Sequence[Address]) -> dict[Address, NodeScore | None]:
        """The score of each node, None where none was ever settled; one call for every 256 nodes."""
        found: dict[Address, NodeScore | None] = {}
        for start in range(0, len(nodes), _MOST_READ):
            some = list(nodes[start : start + _MOST_READ])
            scores, epochs = await self._read("scoresOf", some)
            for node, score, epoch in zip(some, scores, epochs, strict=True):
                found[node] = NodeScore(score, epoch) if epoch else None
        return found

    async def settled(self, node: Address) -> Settlement | None:
        score, rank, ratings, clipped, epoch, stake = await self._read("settledOf", node)
        return Settlement(score, rank, ratings, clipped, epoch, Nectar(stake)) if epoch else None

    async def seat(self, validator: Address) -> Seat:
        epoch, commitment, revealed = await self._read("seatOf", validator)
        return Seat(epoch, Hash32(commitment), revealed)

    async def ratings(self, epoch: int, node: Address) -> Ratings:
        count, stake = await self._read("ratingsOf", epoch, node)
        return Ratings(count, Nectar(stake))

    async def parameters(self) -> OracleParameters:
        return OracleParameters(*await self._read("parameters"))

    async def missed(self, validator: Address) -> int:
        """How many of its commitments a validator never revealed."""
        _commits, missed = await self._read("recordOf", validator)
        return int(missed)

    async def now(self) -> EpochNow:
        epoch, phase, until = await self._read("epochNow")
        return EpochNow(epoch, Phase(phase), UnixTime(until))
