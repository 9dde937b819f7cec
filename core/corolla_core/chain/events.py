"""What happened on chain, as values. Fields are the contracts' event arguments in snake case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import get_args

from corolla_core.chain.abi import load_abi
from corolla_core.protocol.ids import Address, Hash32, TrancheId


@dataclass(frozen=True, slots=True)
class Deposited:
    account: Address
    from_: Address
    amount: int


@dataclass(frozen=True, slots=True)
class FreeWithdrawn:
    account: Address
    to: Address
    amount: int


@dataclass(frozen=True, slots=True)
class TrancheOpened:
    tranche_id: TrancheId
    payer: Address
    signer: Address
    root: Hash32
    total: int
    expiry: int
    closes_at: int


@dataclass(frozen=True, slots=True)
class VoucherRedeemed:
    tranche_id: TrancheId
    payee: Address
    amount: int
    fee: int
    cumulative: int
    receipt_head: Hash32


@dataclass(frozen=True, slots=True)
class PayeeWithdrawn:
    payee: Address
    to: Address
    amount: int


@dataclass(frozen=True, slots=True)
class TrancheReclaimed:
    tranche_id: TrancheId
    payer: Address
    amount: int


@dataclass(frozen=True, slots=True)
class FeesBurned:
    amount: int


@dataclass(frozen=True, slots=True)
class SignerAuthorized:
    payer: Address
    signer: Address
    cap: int
    expiry: int


@dataclass(frozen=True, slots=True)
class SignerThawed:
    payer: Address
    signer: Address
    revocable_at: int


@dataclass(frozen=True, slots=True)
class SignerRevoked:
    payer: Address
    signer: Address


@dataclass(frozen=True, slots=True)
class NodeRegistered:
    node: Address
    owner: Address
    peer_id: bytes
    stake: int


@dataclass(frozen=True, slots=True)
class PeerIdUpdated:
    node: Address
    peer_id: bytes


@dataclass(frozen=True, slots=True)
class StakeAdded:
    node: Address
    from_: Address
    amount: int


@dataclass(frozen=True, slots=True)
class UnstakeBegun:
    node: Address
    amount: int
    withdrawable_at: int


@dataclass(frozen=True, slots=True)
class StakeWithdrawn:
    node: Address
    owner: Address
    amount: int


@dataclass(frozen=True, slots=True)
class StakeLocked:
    node: Address
    amount: int
    until: int


@dataclass(frozen=True, slots=True)
class NodeJailed:
    node: Address
    until: int


@dataclass(frozen=True, slots=True)
class NodeUnjailed:
    node: Address


@dataclass(frozen=True, slots=True)
class NodeSlashed:
    node: Address
    amount: int
    recipient: Address
    reward: int
    fault: Hash32


@dataclass(frozen=True, slots=True)
class ModelPublished:
    model_id: Hash32
    version: int
    manifest_root: Hash32
    name: str
    owner: Address


@dataclass(frozen=True, slots=True)
class ModelDeprecated:
    model_id: Hash32
    version: int


@dataclass(frozen=True, slots=True)
class ModelTransferred:
    model_id: Hash32
    from_: Address
    to: Address


@dataclass(frozen=True, slots=True)
class FaultPunished:
    node: Address
    fault: Hash32
    challenger: Address
    key: Hash32
    until: int
    amount: int
    reward: int


@dataclass(frozen=True, slots=True)
class ClientRefunded:
    tranche_id: TrancheId
    node: Address
    client: Address
    amount: int


@dataclass(frozen=True, slots=True)
class OpeningChallenged:
    challenge_id: Hash32
    node: Address
    challenger: Address
    receipt_hash: Hash32
    position: int
    side: int
    deadline: int


@dataclass(frozen=True, slots=True)
class OpeningAnswered:
    challenge_id: Hash32
    node: Address
    row: bytes


@dataclass(frozen=True, slots=True)
class OpeningExpired:
    challenge_id: Hash32
    node: Address
    punished: bool


@dataclass(frozen=True, slots=True)
class DisputeOpened:
    id: int
    node: Address
    challenger: Address
    receipt_hash: Hash32
    evidence_hash: Hash32
    evidence_uri: str


@dataclass(frozen=True, slots=True)
class JuryCalled:
    id: int
    round: int
    patron: Address
    bond: int
    seats: int


@dataclass(frozen=True, slots=True)
class JurorDrawn:
    id: int
    round: int
    juror: Address
    seats: int


@dataclass(frozen=True, slots=True)
class JuryDrawn:
    id: int
    round: int
    seats: int
    commit_until: int
    reveal_until: int


@dataclass(frozen=True, slots=True)
class VoteRevealed:
    id: int
    round: int
    juror: Address
    vote: int
    seats: int


@dataclass(frozen=True, slots=True)
class DisputeConcluded:
    id: int
    outcome: int
    slashed: int
    refund: int
    seat_reward: int


@dataclass(frozen=True, slots=True)
class JurorSettled:
    id: int
    round: int
    juror: Address
    reward: int
    penalty: int


@dataclass(frozen=True, slots=True)
class DisputeCredited:
    account: Address
    id: int
    amount: int


@dataclass(frozen=True, slots=True)
class ScoreSettled:
    epoch: int
    node: Address
    score: int
    rank: int
    ratings: int
    clipped: int
    stake: int


EscrowEvent = (
    Deposited
    | FreeWithdrawn
    | TrancheOpened
    | VoucherRedeemed
    | PayeeWithdrawn
    | TrancheReclaimed
    | FeesBurned
    | SignerAuthorized
    | SignerThawed
    | SignerRevoked
)
RegistryEvent = (
    NodeRegistered
    | PeerIdUpdated
    | StakeAdded
    | UnstakeBegun
    | StakeWithdrawn
    | StakeLocked
    | NodeJailed
    | NodeUnjailed
    | NodeSlashed
)
ModelEvent = ModelPublished | ModelDeprecated | ModelTransferred
OpeningEvent = OpeningChallenged | OpeningAnswered | OpeningExpired
DisputeEvent = (
    DisputeOpened
    | JuryCalled
    | JurorDrawn
    | JuryDrawn
    | VoteRevealed
    | DisputeConcluded
    | JurorSettled
    | DisputeCredited
)
JusticeEvent = FaultPunished | ClientRefunded | OpeningEvent | DisputeEvent | ScoreSettled
Event = EscrowEvent | RegistryEvent | ModelEvent | JusticeEvent

#: governance and proxy bookkeeping, and what is sealed or only on its way: known, and of no interest to an index
IGNORED = frozenset(
    {
        "Committed",
        "CreditWithdrawn",
        "EIP712DomainChanged",
        "MinStakeSet",
        "OwnerAccepted",
        "OwnershipTransferred",
        "ParametersSet",
        "RatingCrowdedOut",
        "RefundBooked",
        "RoleAdminChanged",
        "RoleGranted",
        "RoleRevoked",
        "ScoresCommitted",
        "ScoresRevealed",
        "SeedArmed",
        "UnbondingDelaySet",
    }
)
#: whose events an index knows
CONTRACTS = ("Escrow", "NodeRegistry", "ModelRegistry", "Faults", "Disputes", "ReputationOracle")
_RENAMED = {
    "Redeemed": "VoucherRedeemed",
    "Accused": "DisputeOpened",
    "Revealed": "VoteRevealed",
    "Concluded": "DisputeConcluded",
    "Settled": "JurorSettled",
    "Credited": "DisputeCredited",
}
_CLASSES = {kind.__name__: kind for kind in get_args(Event)}


def field_name(solidity: str) -> str:
    """`trancheId` → `tranche_id`; `from` → `from_`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", solidity).lower()
    return f"{snake}_" if snake == "from" else snake


def class_of(solidity: str) -> type[Event] | None:
    """The class of a Solidity event; None for one we have none for."""
    return _CLASSES.get(_RENAMED.get(solidity, solidity))


def parse(topics: Sequence[bytes], data: bytes) -> Event | None:
    """The event of a log of our contracts; None when it is none we index. Raises ChainError when it does not parse."""
    for contract in CONTRACTS:
        decoded = load_abi(contract).decode_log(topics, data)
        if decoded is None:
            continue
        kind = class_of(decoded.name)
        if kind is None:
            return None
        values = {field_name(name): value for name, value in decoded.arguments.items()}
        return kind(**{f.name: values[f.name] for f in fields(kind)})
    return None
