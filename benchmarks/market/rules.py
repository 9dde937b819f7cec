"""Every figure the simulation assumes. Money is in nano-Nectar (10**9 base units), so that it fits 64-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Rules:
    """One epoch is about an hour. A session passes one node of each stage; a stage is a span of blocks."""

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
    min_stake: int = 400_000_000
    stake_cap: int = 4_000_000_000
    some_stake_more: bool = True
    wallet: int = 100_000_000
    fee_lock: int = 4
    unbonding: int = 72
    capacity: int = 40

    # audits
    audit: Fraction = Fraction(1, 20)
    probe_after: int = 10
    probation: int = 10
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

    # Sybils: clusters of `identities` on one machine, and machines with one identity and the same stake
    sybil_clusters: int = 3
    identities: int = 8
