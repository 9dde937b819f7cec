"""Calibrations as files: thresholds with the evidence they rest on. Those we measured ourselves ship with the package.

The hash of the thresholds alone, `Calibration.root()`, is what a model version carries on chain; the evidence beside
them lets anyone measure again and compare.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corolla_core.protocol.errors import InvalidInput, NotCalibrated
from corolla_core.protocol.ids import ModelRoot, hash32
from corolla_core.protocol.receipt import NumericClass
from corolla_core.protocol.span import Span
from corolla_core.protocol.verdict import Calibration, Thresholds

FORMAT = "corolla/calibration/v1"
SHIPPED = Path(__file__).with_name("calibrations")
_TESTS = ("w16", "alpha", "mismatch", "kl")


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Thresholds, and for each of them (by `Thresholds.key`) how it was measured, as JSON values."""

    model: str
    calibration: Calibration
    evidence: Mapping[tuple[str, str, Span], Any]

    def merged(self, other: Calibrated) -> Calibrated:
        """These with all of `other`'s, whose own win. Raises InvalidInput for another model's."""
        mine, theirs = self.calibration, other.calibration
        if mine.model_root != theirs.model_root:
            raise InvalidInput(f"that file is of another model, {self.model}")
        entries = {entry.key: entry for entry in (*mine.entries, *theirs.entries)}
        evidence = {**self.evidence, **other.evidence}
        return Calibrated(other.model, Calibration.of(mine.model_root, entries.values()), evidence)

    def to_json(self) -> str:
        body = {
            "format": FORMAT,
            "model": self.model,
            "model_root": self.calibration.model_root.hex(),
            "root": self.calibration.root().hex(),
            "unit": "1e-12",
            "entries": [
                {
                    "class": entry.numeric_class.value,
                    "wire": entry.wire,
                    "span": str(entry.span),
                    **{test: getattr(entry, test) for test in _TESTS},
                    "evidence": self.evidence.get(entry.key),
                }
                for entry in self.calibration.entries
            ],
        }
        return json.dumps(body, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Calibrated:
        """Raises InvalidInput for anything but a calibration whose stated root is its root."""
        try:
            body = json.loads(text)
            pairs = [(_entry(raw), raw["evidence"]) for raw in body["entries"]]
            model_root, stated, model = ModelRoot(hash32(body["model_root"])), hash32(body["root"]), body["model"]
            version = body["format"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise InvalidInput("not a calibration") from None
        if not isinstance(model, str) or version != FORMAT:
            raise InvalidInput("not a calibration of this version")
        calibration = Calibration(model_root, tuple(entry for entry, _evidence in pairs))
        if calibration.root() != stated:
            raise InvalidInput("the thresholds do not give the root the file states")
        return cls(model, calibration, {entry.key: evidence for entry, evidence in pairs})


def shipped_calibration(model_root: ModelRoot) -> Calibrated:
    """The calibration of a model version that comes with the package. Raises NotCalibrated where none does."""
    for path in sorted(SHIPPED.glob("*.json")):
        found = Calibrated.from_json(path.read_bytes())
        if found.calibration.model_root == model_root:
            return found
    raise NotCalibrated(f"no calibration of model {model_root.hex()} comes with this version")


def _entry(raw: Any) -> Thresholds:
    limits = [raw[test] for test in _TESTS]
    return Thresholds(NumericClass(raw["class"]), raw["wire"], Span.parse(raw["span"]), *limits)
