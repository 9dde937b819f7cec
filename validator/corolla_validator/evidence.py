"""What a measurement states of itself, so that anyone can repeat it and see why theirs differs."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import scipy
import torch
import transformers

from corolla_core.model.calibrated import Calibrated
from corolla_core.model.manifest import Manifest
from corolla_core.protocol.verdict import Calibration
from corolla_validator.calibrate import Noise
from corolla_validator.honest import VARIANTS
from corolla_validator.texts import prose, text_hash


def calibrated(manifest: Manifest, noises: Sequence[Noise], *, length: int, seconds: float) -> Calibrated:
    """The thresholds of what was measured, each with its evidence. Nothing was drawn at random: there is no seed."""
    entries = {noise.numeric_class: noise for noise in noises}
    shared = {
        "machine": _machine(),
        "versions": _versions(),
        "variants": [asdict(variant) for variant in VARIANTS],
        "text_sha256": text_hash(prose()),
        "passage_length": length,
        "classes": sorted(entries),
        "seconds_of_the_run": round(seconds),
    }
    evidence = {}
    thresholds = []
    for noise in noises:
        found = noise.thresholds()
        thresholds.append(found)
        tails = {test: asdict(tail) for test, tail in noise.tails().items()}
        evidence[found.key] = {"tokens": noise.tokens, "tails": tails, **shared}
    return Calibrated(manifest.name, Calibration.of(manifest.root, thresholds), evidence)


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "device": "cpu",
        "threads": sorted({variant.threads for variant in VARIANTS}),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "scipy": scipy.__version__,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
