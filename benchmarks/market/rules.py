"""Every figure the simulation assumes. Money is in nano-Nectar (10**9 base units), so that it fits 64-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from corolla.peers import UNMEASURED_RTT
from corolla_core.protocol.reputation import ReputationTerms
from corolla_core.protocol.units import Nectar

_TERMS = ReputationTerms(evidence_unit=Nectar(1_248_000))


@dataclass(frozen=True, slots=True)
class Rules:
    """One epoch is an hour. A session passes one node of each stage; a stage is a span of blocks. There are `nodes` in
    the first epoch, and the `machines` studied beside them."""

    nodes: int = 1000
    adversaries: Fraction = Fraction(1, 5)
    epochs: int = 60
    sessions: int = 600
    stages: int = 6
    blocks: int = 5

    # what is earned and spent, per token and block
    price: int = 1_000
    cost: int = 600
    mean_tokens: int = 256
    fee_burnt: Fraction = Fraction(1, 40)
    fee_audits: Fraction = Fraction(1, 40)

    # stakes
    min_stake: int = 500_000_000
    some_stake_more: bool = True
    wallet: int = 100_000_000
    fee_lock: int = 4
    unbonding: int = 72
    capacity: int = 12

    # who is chosen: the product's reputation, an average fee net of burn being one unit of evidence
    terms: ReputationTerms = _TERMS
    good_name: float = 200.0
    settled_every: int = 24
    price_importance: float = 0.5

    # clients: each somewhere in the unit square, across which a round trip takes `across` seconds
    unmeasured: float = UNMEASURED_RTT
    clients: int = 200
    client_leaves: float = 0.01
    across: float = 0.15

    # audits
    audit: Fraction = Fraction(1, 20)
    probed: Fraction = Fraction(1, 10)
    opening_deadline: int = 24
    jail: int = 24

    # penalties
    slash_numerics: Fraction = Fraction(1, 2)
    slash_withheld: Fraction = Fraction(1, 20)
    bond: int = 20_000_000
    juror_wrong: Fraction = Fraction(1, 50)
    juror_absent: Fraction = Fraction(1, 100)

    # validators, who are the jurors too
    validators: int = 40
    lazy: int = 6
    false_accusers: int = 2
    bribed: int = 6
    validator_stake: int = 2_000_000_000
    validator_wallet: int = 1_000_000_000
    audit_reward: int = 300_000
    audit_cost: int = 100_000
    planted: Fraction = Fraction(1, 100)
    slash_missed: Fraction = Fraction(1, 20)
    accusations: float = 0.1
    no_show: float = 0.03

    # churn, per epoch
    crash: float = 0.01
    max_down: int = 12
    leave: float = 0.001
    joins: float = 1.0

    # machines whose owner splits one stake over identities of different owners, or does not
    machines: int = 0
    identities: int = 1
    machine_stake: int = 16 * 500_000_000
    machines_cheat: bool = False
    machines_new: bool = False
