"""The jury: accusations, sealed votes, appeals, and the jurors' stake (protocol.md section 4)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from corolla_core.chain.contract import Contract
from corolla_core.chain.mined import Mined
from corolla_core.chain.rpc import Chain
from corolla_core.chain.sender import TransactionSender
from corolla_core.chain.token import Token
from corolla_core.protocol.errors import ChainError, ConfigError, InvalidInput
from corolla_core.protocol.ids import ZERO_ADDRESS, ZERO_HASH, Address, Hash32, TrancheId
from corolla_core.protocol.receipt import SignedReceipt
from corolla_core.protocol.units import Nectar, UnixTime

MAX_URI = 256


class Vote(IntEnum):
    NONE = 0
    CORRECT = 1
    FAULTY = 2
    UNAVAILABLE = 3


class Outcome(IntEnum):
    OPEN = 0
    CORRECT = 1
    FAULTY = 2
    UNAVAILABLE = 3
    DRAW = 4


class Phase(IntEnum):
    UNKNOWN = 0
    DRAWING = 1
    COMMITTING = 2
    REVEALING = 3
    APPEALING = 4
    CONCLUDABLE = 5
    CONCLUDED = 6


@dataclass(frozen=True, slots=True)
class Accusation:
    """What a challenger says of a receipt that a node signed.

    `evidence_hash` is the SHA-256 of what jurors find at `evidence_uri`. With the tranche that paid for the work, its
    payer is refunded up to `harm` of what the node claimed from it.
    """

    signed: SignedReceipt
    evidence_hash: Hash32
    evidence_uri: str = ""
    tranche_id: TrancheId | None = None
    harm: Nectar = Nectar(0)  # noqa: RUF009 — an int

    def __post_init__(self) -> None:
        if len(self.evidence_uri.encode()) > MAX_URI:
            raise InvalidInput(f"an evidence URI has at most {MAX_URI} bytes")
        if self.evidence_hash == ZERO_HASH:
            raise InvalidInput("an accusation needs evidence")


@dataclass(frozen=True, slots=True)
class Dispute:
    """A dispute on chain. `round` counts its appeals; `client` is the zero address when nobody is to be refunded."""

    id: int
    node: Address
    challenger: Address
    seat_reward: Nectar
    node_owner: Address
    harm: Nectar
    client: Address
    round: int
    outcome: Outcome
    receipt_hash: Hash32
    evidence_hash: Hash32
    tranche_id: TrancheId


@dataclass(frozen=True, slots=True)
class JuryRound:
    """One jury of a dispute. Deadlines are inclusive; those after `draw_until` are 0 until it is drawn.

    `seats` counts the seats drawn, `votes` the revealed ones.
    """

    patron: Address
    bond: Nectar
    seed_block: int
    draw_until: UnixTime
    commit_until: UnixTime
    reveal_until: UnixTime
    for_node: bool
    seats: int
    votes: dict[Vote, int]


@dataclass(frozen=True, slots=True)
class Ballot:
    """A juror's seats in one round; `seats` is 0 when it was not drawn."""

    seats: int
    vote: Vote
    settled: bool
    locked: Nectar
    penalty: Nectar
    commitment: Hash32


@dataclass(frozen=True, slots=True)
class Juror:
    """A juror's stake. `owner` is the zero address when the account never joined."""

    owner: Address
    stake: Nectar
    unbonding: Nectar
    locked: Nectar
    unbonding_at: UnixTime

    @property
    def joined(self) -> bool:
        return self.owner != ZERO_ADDRESS


@dataclass(frozen=True, slots=True)
class DisputeParameters:
    """Base units, seconds, and fractions in 1/10,000; in the order of the contract's constructor."""

    bond: Nectar
    min_juror_stake: Nectar
    draw_period: int
    commit_period: int
    reveal_period: int
    appeal_period: int
    jail_period: int
    slash_bps: int
    challenger_bps: int
    jury_bps: int
    penalty_bps: int


def new_salt() -> Hash32:
    """What keeps a sealed vote from being guessed. It must be kept until the vote is revealed."""
    return Hash32(secrets.token_bytes(32))


def seal(dispute: int, round_: int, juror: Address, vote: Vote, salt: Hash32) -> Hash32:
    """`keccak(disputeId, round, juror, vote, salt)`, which a juror commits to before anyone votes openly."""
    kinds = ("uint256", "uint8", "address", "uint8", "bytes32")
    return Hash32(keccak(encode(kinds, (dispute, round_, juror, int(vote), salt))))


class JurorPool(Contract):
    """The jurors' stake; get it from `Disputes.pool()`. `juror` defaults to the sender's own account."""

    abi_name = "JurorPool"

    async def join(self, owner: Address, stake: Nectar) -> Mined:
        """Make the sender a juror, staking its tokens for `owner`; approves the pool first if needed."""
        await Token(self.chain, self.sender).ensure_allowance(self.address, stake)
        return await self._send("join", owner, stake)

    async def add_stake(self, amount: Nectar, *, juror: Address | None = None) -> Mined:
        """Add the sender's tokens to a juror's stake; approves the pool first if needed."""
        await Token(self.chain, self.sender).ensure_allowance(self.address, amount)
        return await self._send("addStake", juror or self.sender.address, amount)

    async def begin_leave(self, amount: Nectar, *, juror: Address | None = None) -> Mined:
        """Start unbonding; only the owner may. It restarts the delay of what is unbonding already."""
        return await self._send("beginLeave", juror or self.sender.address, amount)

    async def withdraw_stake(self, *, juror: Address | None = None) -> Nectar:
        """Send what has unbonded and is behind no seat to the owner; returns how much."""
        mined = await self._send("withdrawStake", juror or self.sender.address)
        return Nectar(sum(event.arguments["amount"] for event in self._events(mined, "JurorStakeWithdrawn")))

    async def juror(self, account: Address) -> Juror:
        owner, stake, unbonding, locked, at, _leaf = await self._read("jurorOf", account)
        return Juror(owner, Nectar(stake), Nectar(unbonding), Nectar(locked), UnixTime(at))

    async def min_stake(self) -> Nectar:
        return Nectar(await self._read("minStake"))

    async def unbonding_delay(self) -> int:
        """Seconds."""
        return int(await self._read("JUROR_UNBONDING"))


class Disputes(Contract):
    """Writes act for the sender's account and raise TransactionReverted with the contract's reason."""

    abi_name = "Disputes"

    def __init__(self, chain: Chain, sender: TransactionSender | None = None) -> None:
        """Raises ConfigError on a network without a jury."""
        if chain.network.disputes == ZERO_ADDRESS:
            raise ConfigError(f"network {chain.network.name} has no jury")
        super().__init__(chain, chain.network.disputes, sender)

    async def pool(self) -> JurorPool:
        """The jurors' stake."""
        return JurorPool(self.chain, await self._read("POOL"), self._sender)

    # ---- a dispute's way ----

    async def accuse(self, accusation: Accusation) -> int:
        """Open a dispute, with the sender's bond; approves it first if needed. Returns the dispute's id."""
        await Token(self.chain, self.sender).ensure_allowance(self.address, await self.bond())
        signed = accusation.signed
        fields = (
            signed.signer(),
            signed.receipt.hash(),
            signed.signature,
            accusation.evidence_hash,
            accusation.evidence_uri,
            accusation.tranche_id or ZERO_HASH,
            accusation.harm,
        )
        for event in self._events(await self._send("accuse", fields), "Accused"):
            return int(event.arguments["id"])
        raise ChainError("an accusation left no event")

    async def draw(self, dispute: int) -> dict[Address, int] | None:
        """Draw the jury: seats by juror. None when the seed block was missed and a new one is set: draw again later.

        Raises TransactionReverted (`SeedNotMined`) while the seed block is not past.
        """
        mined = await self._send("draw", dispute)
        if not any(self._events(mined, "JuryDrawn")):
            return None
        return {event.arguments["juror"]: event.arguments["seats"] for event in self._events(mined, "JurorDrawn")}

    async def commit(self, dispute: int, vote: Vote, salt: Hash32) -> Mined:
        """Seal the sender's vote in the current round. May be done again until the deadline."""
        sealed = seal(dispute, (await self.dispute(dispute)).round, self.sender.address, vote, salt)
        return await self._send("commit", dispute, sealed)

    async def reveal(self, dispute: int, vote: Vote, salt: Hash32) -> Mined:
        """Open the sender's sealed vote."""
        return await self._send("reveal", dispute, int(vote), salt)

    async def appeal(self, dispute: int) -> Mined:
        """Call for a larger jury, with the sender's bond; approves it first if needed."""
        larger = (await self.dispute(dispute)).round + 1
        # Not `bond(larger)`: the dispute keeps the terms it was opened under.
        first, seats = (await self.round(dispute, 0)).bond, await self._read("seatsOf", larger)
        bond = Nectar(first * seats // await self._read("seatsOf", 0))
        await Token(self.chain, self.sender).ensure_allowance(self.address, bond)
        return await self._send("appeal", dispute)

    async def conclude(self, dispute: int) -> Outcome:
        """Make the last jury's verdict final."""
        for event in self._events(await self._send("conclude", dispute), "Concluded"):
            return Outcome(event.arguments["outcome"])
        raise ChainError("concluding a dispute left no event")

    async def settle(self, dispute: int, jurors: Sequence[Address]) -> Mined:
        """Pay or penalise jurors of a concluded dispute and release their stake; those settled already are skipped."""
        return await self._send("settle", dispute, list(jurors))

    async def withdraw(self, *, to: Address | None = None) -> Nectar:
        """Send all the sender was credited; returns how much."""
        mined = await self._send("withdraw", to or self.sender.address)
        return Nectar(sum(event.arguments["amount"] for event in self._events(mined, "CreditWithdrawn")))

    # ---- reading ----

    async def credit(self, account: Address) -> Nectar:
        return Nectar(await self._read("credit", account))

    async def bond(self, round_: int = 0) -> Nectar:
        """What calling the jury of a round costs, in disputes opened now."""
        return Nectar(await self._read("bondOf", round_))

    async def count(self) -> int:
        """How many disputes there were; their ids are 1 to this."""
        return int(await self._read("disputes"))

    async def dispute_over(self, node: Address, receipt_hash: Hash32) -> int | None:
        """The last dispute over a receipt."""
        return int(await self._read("disputeOver", node, receipt_hash)) or None

    async def phase(self, dispute: int) -> Phase:
        return Phase(await self._read("phaseOf", dispute))

    async def verdict(self, dispute: int, round_: int) -> Outcome:
        """What the round's revealed seats say so far."""
        return Outcome(await self._read("verdictOf", dispute, round_))

    async def dispute(self, dispute: int) -> Dispute:
        """All zero when there is no such dispute."""
        found = await self._read("dispute", dispute)
        node, _snapshot, _leaves, challenger, reward, owner, harm, client, _terms, round_, outcome = found[:11]
        _challenger_owner, receipt_hash, evidence_hash, tranche_id = found[11:]
        return Dispute(
            id=dispute,
            node=node,
            challenger=challenger,
            seat_reward=Nectar(reward),
            node_owner=owner,
            harm=Nectar(harm),
            client=client,
            round=round_,
            outcome=Outcome(outcome),
            receipt_hash=Hash32(receipt_hash),
            evidence_hash=Hash32(evidence_hash),
            tranche_id=TrancheId(tranche_id),
        )

    async def round(self, dispute: int, round_: int) -> JuryRound:
        found = await self._read("roundOf", dispute, round_)
        patron, bond, seed_block, draw_until, commit_until, reveal_until, for_node, seats, _penalties = found
        return JuryRound(
            patron=patron,
            bond=Nectar(bond),
            seed_block=seed_block,
            draw_until=UnixTime(draw_until),
            commit_until=UnixTime(commit_until),
            reveal_until=UnixTime(reveal_until),
            for_node=for_node,
            seats=seats[Vote.NONE],
            votes={vote: seats[vote] for vote in Vote if vote is not Vote.NONE},
        )

    async def ballot(self, dispute: int, round_: int, juror: Address) -> Ballot:
        seats, vote, settled, locked, penalty, commitment = await self._read("ballotOf", dispute, round_, juror)
        return Ballot(seats, Vote(vote), settled, Nectar(locked), Nectar(penalty), Hash32(commitment))

    async def parameters(self) -> DisputeParameters:
        return DisputeParameters(*await self._read("parameters"))
