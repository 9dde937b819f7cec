"""Which device and arithmetic a node computes with: of what was asked for, is here, and the network admits.

`choose_engine` decides; `this_machine` and `usable_cores` look.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from corolla_core.protocol.errors import ConfigError, ModelError
from corolla_core.protocol.receipt import NumericClass

AUTO = "auto"
NUMERIC_CLASS = {
    "float32": NumericClass.FP32,
    "bfloat16": NumericClass.BF16,
    "float16": NumericClass.FP16,
    "int8": NumericClass.INT8,
}
_PREFERRED = {"cpu": ("float32", "int8", "bfloat16"), "cuda": ("bfloat16", "float16", "float32")}
"""What each kind of device computes in, the first one that is admitted if nobody says. On a CPU float32 is what can be
checked best, bfloat16 is slowest and float16 has no fast products; int8 layers are made for a CPU only."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Free bytes: of main memory, and of each CUDA card that torch sees."""

    memory: int
    cards: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """`memory` is what is free where the weights go; `why` says in a few words what decided."""

    device: str
    dtype: str
    memory: int
    why: str


def choose_engine(
    device: str,
    dtype: str,
    *,
    admitted: Collection[NumericClass],
    machine: Machine,
    block_bytes: Callable[[str], int],
) -> Engine:
    """`device` and `dtype` may be `auto`: then a card that holds a block is taken before the CPU, and the first
    arithmetic that the network admits (all, where `admitted` is empty). What was named is used or refused.

    `block_bytes` gives the size of one block by dtype. Raises ConfigError for what this machine cannot do, ModelError
    for what the network does not admit.
    """
    if dtype != AUTO and admitted and NUMERIC_CLASS[dtype] not in admitted:
        raise ModelError(f"the network admits {', '.join(admitted)} for this model, not {NUMERIC_CLASS[dtype]}")
    passed_over = []
    for name, free in _places(device, machine):
        kind = "cuda" if name.startswith("cuda") else "cpu"
        fitting = [each for each in _PREFERRED[kind] if dtype in (AUTO, each)]
        if not fitting:
            passed_over.append(f"{dtype} is not computed on {name}")
            continue
        allowed = [each for each in fitting if not admitted or NUMERIC_CLASS[each] in admitted]
        if not allowed:
            passed_over.append(f"{name} computes in nothing the network admits")
            continue
        if kind == "cuda" and block_bytes(allowed[0]) > free:
            passed_over.append(f"{name} has no room for a block")
            continue
        if device == AUTO and not machine.cards:
            passed_over.append("no CUDA card")
        reasons = [*passed_over, *([f"{allowed[0]} comes first there"] if dtype == AUTO else [])]
        return Engine(name, allowed[0], free, "; ".join(reasons) or "as asked")
    if dtype == AUTO and all("admits" in reason for reason in passed_over):
        raise ModelError(f"the network admits {', '.join(admitted)} for this model: {'; '.join(passed_over)}")
    raise ConfigError(f"cannot compute {dtype} on {device}: {'; '.join(passed_over)}")


def _places(device: str, machine: Machine) -> Sequence[tuple[str, int]]:
    """The devices that `device` may mean, the likeliest first, with their free bytes. Raises ConfigError."""
    cards = [(f"cuda:{number}", free) for number, free in enumerate(machine.cards)]
    cards.sort(key=lambda card: -card[1])
    if device == AUTO:
        return [*cards, ("cpu", machine.memory)]
    if device == "cpu":
        return [("cpu", machine.memory)]
    if device != "cuda" and not device.startswith("cuda:"):
        raise ConfigError(f"--device is auto, cpu, cuda or cuda:NUMBER, not {device}")
    found = [card for card in cards if device in ("cuda", card[0])]
    if not found:
        raise ConfigError(f"no {device}: torch {torch.__version__} sees {len(cards)} CUDA cards here")
    return found


def this_machine() -> Machine:
    """What is here and free now."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    free = tuple(int(torch.cuda.mem_get_info(number)[0]) for number in range(count))
    return Machine(int(psutil.virtual_memory().available), free)


def usable_cores(*, root: Path = Path("/"), cpus: Collection[int] | None = None) -> int:
    """Physical cores this process may keep busy, at least 1: those of its affinity (`cpus`) on Linux, no more than its
    cgroup's quota of processor time; all of the machine's elsewhere. Two threads on one core only wait for each
    other in a product of matrices, and threads beyond the quota stop all of them."""
    if cpus is None and hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
    if cpus is None:
        return psutil.cpu_count(logical=False) or 1
    siblings = root / "sys/devices/system/cpu"
    cores = {_text(siblings / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in cpus}
    return max(1, min(len(cores), _quota(root / "sys/fs/cgroup") or len(cores)))


def _quota(cgroup: Path) -> int | None:
    """Whole processors a container may use, by cgroup v2 or v1; None where it has no limit."""
    words = _text(cgroup / "cpu.max").split() or [
        _text(cgroup / "cpu/cpu.cfs_quota_us"),
        _text(cgroup / "cpu/cpu.cfs_period_us"),
    ]
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return None
    return max(1, int(words[0]) // int(words[1]))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
