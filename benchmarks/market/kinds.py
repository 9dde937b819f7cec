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
    """`cheat` names its row in the detection table.

    It saves `saved` per mille of the compute of every session it cheats in, and is paid `bribe` for each by somebody
    outside; with `smells` it behaves whenever it is probed.
    """

    name: str
    cheat: str
    saved: int
    bribe: int = 0
    smells: bool = False
    fault: Fault = Fault.NUMERICS


BRIBE = 2_000_000
"""What somebody outside pays for one poisoned session, about 1.5 times the fee."""

KINDS = (
    Kind("skip layer", "skip_layer", 200),
    Kind("early exit", "early_exit", 600),
    Kind("wrong weights", "wrong_weights", 600),
    Kind("int8 per channel", "int8_per_channel", 350),
    Kind("NF4", "nf4", 500),
    Kind("int8 KV", "kv_int8", 100),
    Kind("1 % noise", "noise_1pct", 0, bribe=BRIBE),
    Kind("perturbation inside the tolerance", "perturbation", 0, bribe=BRIBE),
    Kind("attention window", "attention_window", 150),
    Kind("stale KV", "stale_kv", 150),
    Kind("replayed receipts", "replayed_receipts", 900),
    Kind("equivocation", "equivocation", 0, bribe=BRIBE, fault=Fault.PROVEN),
    Kind("copied output", "copied_output", 900),
    Kind("withheld openings", "withheld_openings", 600, fault=Fault.WITHHELD),
    Kind("behaves when it smells a probe", "early_exit", 600, smells=True),
    Kind("two colluding neighbours", "skip_layer", 400),
)
HONEST = -1
EARLY_EXIT = next(i for i, kind in enumerate(KINDS) if kind.name == "early exit")
