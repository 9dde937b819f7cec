"""A network with a jury. Tests speak through this: accuse a node, draw, vote, conclude.

Accounts, beside those of `World`: 4 is the accused node and 5 its owner, 6 the challenger, 1 the client, 7 to 11 jurors
(as are 2 and 3 in tests that need more), each its own owner unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

from brownie import accounts, chain
from eth_abi import encode
from eth_utils import keccak
from world import DAY, ONE_NECTAR, World, deploy, now, pass_time, signer

NODE, OWNER, CHALLENGER, CLIENT = 4, 5, 6, 1
JURORS = (7, 8, 9, 10, 11)
BOND, SEAT_STAKE = 50 * ONE_NECTAR, 10 * ONE_NECTAR
DRAW, COMMIT, REVEAL, APPEAL, JAIL = 3_600, 7_200, 7_200, 10_800, 30 * DAY
SLASH_BPS, CHALLENGER_BPS, JURY_BPS, PENALTY_BPS = 5_000, 3_000, 2_000, 1_000
TERMS = (
    BOND,
    SEAT_STAKE,
    DRAW,
    COMMIT,
    REVEAL,
    APPEAL,
    JAIL,
    SLASH_BPS,
    CHALLENGER_BPS,
    JURY_BPS,
    PENALTY_BPS,
)
FIELDS = (
    "bond",
    "minJurorStake",
    "drawPeriod",
    "commitPeriod",
    "revealPeriod",
    "appealPeriod",
    "jailPeriod",
    "slashBps",
    "challengerBps",
    "juryBps",
    "penaltyBps",
)
LONGEST = 3 * (DRAW + COMMIT + REVEAL) + 2 * APPEAL
JUROR_UNBONDING = 8 * DAY
SEATS = (5, 11, 23)
NONE, CORRECT, FAULTY, UNAVAILABLE, DRAWN = range(5)
UNKNOWN, DRAWING, COMMITTING, REVEALING, APPEALING, CONCLUDABLE, CONCLUDED = range(7)
SALT = keccak(text="salt")
_receipts = count(1)


def terms(**changes: int) -> tuple[int, ...]:
    """The parameters with some of them changed."""
    return tuple((dict(zip(FIELDS, TERMS, strict=True)) | changes).values())


def bond_of(round_: int) -> int:
    return BOND * SEATS[round_] // 5


def commitment(id_: int, round_: int, juror: int, vote: int, salt: bytes = SALT) -> bytes:
    """What a juror seals: `keccak(disputeId, round, juror, vote, salt)`."""
    values = (id_, round_, accounts[juror].address, vote, salt)
    return keccak(encode(["uint256", "uint8", "address", "uint8", "bytes32"], values))


def mirror(seed_block: int, disputes: Any, id_: int, round_: int, stakes: list[tuple[str, str, int]], barred: set[str]):
    """Who must be drawn: `stakes` are (juror, owner, stake) in the order they joined, as they were when frozen."""
    total = sum(stake for _, _, stake in stakes)
    block_hash = bytes(chain[seed_block].hash)
    seed = keccak(encode(["bytes32", "address", "uint256", "uint8"], (block_hash, disputes.address, id_, round_)))
    seats: dict[str, int] = {}
    for attempt in range(4 * SEATS[round_] if total else 0):
        if sum(seats.values()) == SEATS[round_]:
            break
        target = int.from_bytes(keccak(encode(["bytes32", "uint256"], (seed, attempt))), "big") % total
        for juror, owner, stake in stakes:
            if target < stake:
                if juror not in barred and owner not in barred:
                    seats[juror] = seats.get(juror, 0) + 1
                break
            target -= stake
    return seats


@dataclass
class JuryWorld(World):
    disputes: Any
    pool: Any

    def grant(self, account: int, amount: int, spender: Any) -> None:
        self.token.transfer(accounts[account], amount, {"from": accounts[0]})
        self.token.approve(spender, amount, {"from": accounts[account]})

    def join(self, juror: int, stake: int, owner: int | None = None) -> Any:
        self.grant(juror, stake, self.pool)
        return self.pool.join(accounts[juror if owner is None else owner], stake, {"from": accounts[juror]})

    def receipt(self) -> bytes:
        """A receipt hash nobody has seen before."""
        return keccak(text=f"receipt {next(_receipts)}")

    def accuse(self, *, by: int = CHALLENGER, node: int = NODE, signed_by: int | None = None, **changes: Any) -> int:
        """Opens a dispute; `changes` are fields of the accusation. The challenger has its bond."""
        receipt = changes.get("receipt") or self.receipt()
        self.grant(by, BOND, self.disputes)
        accusation = (
            accounts[node],
            receipt,
            changes.get("signature", signer(node if signed_by is None else signed_by).sign(receipt)),
            changes.get("evidence", keccak(text="evidence")),
            changes.get("uri", "https://evidence.example/1"),
            changes.get("tranche", bytes(32)),
            changes.get("harm", 0),
        )
        self.disputes.accuse(accusation, {"from": accounts[by]})
        return int(self.disputes.disputes())

    def draw(self, id_: int) -> dict[int, int]:
        """Draws the jury; its jurors by account and how many seats each has."""
        chain.mine(1)
        tx = self.disputes.draw(id_, {"from": accounts[0]})
        assert "JuryDrawn" in tx.events
        return self.drawn(tx)

    def with_several_jurors(self) -> tuple[int, dict[int, int]]:
        """A dispute whose jury is not all one juror, and that jury."""
        while True:
            id_ = self.accuse()
            jury = self.draw(id_)
            if len(jury) > 1:
                return id_, jury

    def drawn(self, tx: Any) -> dict[int, int]:
        if "JurorDrawn" not in tx.events:
            return {}
        index = {account.address: i for i, account in enumerate(accounts)}
        return {index[event["juror"]]: event["seats"] for event in tx.events["JurorDrawn"]}

    def round_of(self, id_: int) -> int:
        return int(self.disputes.dispute(id_)["round"])

    def current(self, id_: int) -> Any:
        return self.disputes.roundOf(id_, self.round_of(id_))

    def commit(self, id_: int, juror: int, vote: int, salt: bytes = SALT) -> Any:
        sealed = commitment(id_, self.round_of(id_), juror, vote, salt)
        return self.disputes.commit(id_, sealed, {"from": accounts[juror]})

    def reveal(self, id_: int, juror: int, vote: int, salt: bytes = SALT) -> Any:
        return self.disputes.reveal(id_, vote, salt, {"from": accounts[juror]})

    def vote(self, id_: int, votes: dict[int, int]) -> None:
        """The jurors (by account) commit and reveal their votes; the time after that is up."""
        for juror, vote in votes.items():
            self.commit(id_, juror, vote)
        pass_time(self.current(id_)["commitUntil"] + 1)
        for juror, vote in votes.items():
            self.reveal(id_, juror, vote)
        pass_time(self.current(id_)["revealUntil"] + 1)

    def jury_votes(self, id_: int, vote: int) -> dict[int, int]:
        """Draws a jury that all votes the same."""
        jury = self.draw(id_)
        self.vote(id_, dict.fromkeys(jury, vote))
        return jury

    def appeal(self, id_: int, *, by: int) -> Any:
        self.grant(by, bond_of(self.round_of(id_) + 1), self.disputes)
        return self.disputes.appeal(id_, {"from": accounts[by]})

    def let_appeals_pass(self, id_: int) -> None:
        pass_time(max(now() + 1, self.current(id_)["revealUntil"] + APPEAL + 1))

    def conclude(self, id_: int) -> Any:
        self.let_appeals_pass(id_)
        return self.disputes.conclude(id_, {"from": accounts[0]})

    def settle(self, id_: int, jurors: Any) -> Any:
        return self.disputes.settle(id_, [accounts[juror] for juror in jurors], {"from": accounts[0]})

    def credit(self, account: int) -> int:
        return int(self.disputes.credit(accounts[account]))

    def phase(self, id_: int) -> int:
        chain.mine(1)
        return int(self.disputes.phaseOf(id_))

    def juror(self, account: int) -> Any:
        return self.pool.jurorOf(accounts[account])


def deploy_jury(project: Any, deployer: Any, token: Any = None, **changes: int) -> JuryWorld:
    """A world with a jury, a staked node and no jurors yet."""
    base = deploy(project, deployer, token)
    disputes = deployer.deploy(
        project.Disputes, base.token, base.registry, base.escrow, base.timelock, JUROR_UNBONDING, terms(**changes)
    )
    for role in (base.registry.SLASHER_ROLE(), base.registry.JAILER_ROLE()):
        base.registry.grantRole(role, disputes, {"from": deployer})
    pool = project.JurorPool.at(disputes.POOL())
    return JuryWorld(**vars(base), disputes=disputes, pool=pool)
