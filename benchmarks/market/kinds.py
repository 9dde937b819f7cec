"""The kinds of adversary, and what each saves and is paid."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    """How a cheat that is seen is punished (protocol.md section 4)."""

    NUMERICS = "jury recomputes"
    PROVEN = "proven on chain"
    WITHHELD = "timeout on chain"


@dataclass(frozen=True, slots=True)
class Kind:
    """`behaviour` names its row in the detection table; None for what a signature or a clock proves.

    It saves `saved` per mille of the compute of every session it cheats in, and is paid `bribe` for each by somebody
    outside. With `wary` it behaves when probed, and as long as a failed audit is held against it: all its sessions are
    audited then, which it notices by being asked for their rows.
    """

    name: str
    behaviour: str | None
    saved: int
    bribe: int = 0
    wary: bool = False
    fault: Fault = Fault.NUMERICS


BRIBE = 2_000_000
"""What somebody outside pays for one poisoned session, about 1.5 times the fee."""

KINDS = (
    Kind("skip layer", "skip one block", 200),
    Kind("early exit", "early exit", 600),
    Kind("wrong weights", "wrong weights", 600),
    Kind("int8 per channel", "int8 per channel", 350),
    Kind("int8 on one block", "int8 on one block", 35),
    Kind("NF4", "NF4", 500),
    Kind("int8 KV", "int8 KV", 100),
    Kind("1 % noise", "1 % noise", 0, bribe=BRIBE),
    Kind("perturbation inside the tolerance", "poison (PGD)", 0, bribe=BRIBE),
    Kind("attention window", "attention window", 150),
    Kind("stale KV", "stale KV", 150),
    Kind("replayed receipts", None, 900),
    Kind("equivocation", None, 0, bribe=BRIBE, fault=Fault.PROVEN),
    Kind("copied output", "copied output", 900),
    Kind("withheld openings", None, 600, fault=Fault.WITHHELD),
    Kind("behaves when it smells a probe", "early exit", 600, wary=True),
    Kind("two colluding neighbours", "skip one block", 400),
)
HONEST = -1
EARLY_EXIT = next(i for i, kind in enumerate(KINDS) if kind.name == "early exit")
