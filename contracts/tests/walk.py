"""Random histories: a machine's rules in random order with random arguments, its invariants after every step.

Brownie's state machines draw from hypothesis, whose first ten histories are of a step or two: at the handful of
histories that a chain allows for, those never get anywhere. A walk of ours is as long as it says, and its seed
repeats it. `COROLLA_SEED` chooses other walks, `COROLLA_EXAMPLES` more of them.
"""

from __future__ import annotations

import inspect
import os
from random import Random
from typing import Any

EXAMPLES = int(os.environ.get("COROLLA_EXAMPLES", "40"))
FIRST_SEED = int(os.environ.get("COROLLA_SEED", "0"))


def seeds(examples_a_walk: int) -> range:
    """The seeds of as many walks as COROLLA_EXAMPLES pays for."""
    return range(FIRST_SEED, FIRST_SEED + max(2, EXAMPLES // examples_a_walk))


def walk(machine: Any, rng: Random, *, steps: int) -> None:
    """`steps` rules of `machine`: methods `rule_…`, whose parameters are drawn by the methods `draw_<parameter>(rng)`.

    Methods `invariant_…` are called after every step. A failure tells the history that led to it.
    """
    methods = dict(inspect.getmembers(machine, inspect.ismethod))
    rules = [name for name in methods if name.startswith("rule_")]
    invariants = [name for name in methods if name.startswith("invariant_")]
    history: list[str] = []
    try:
        for _ in range(steps):
            rule = rng.choice(rules)
            arguments = {name: methods[f"draw_{name}"](rng) for name in inspect.signature(methods[rule]).parameters}
            history.append(f"{rule}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})")
            methods[rule](**arguments)
            for invariant in invariants:
                methods[invariant]()
    except Exception as error:
        raise AssertionError("after\n  " + "\n  ".join(history)) from error
