"""`docs/img/benchmarks.png`: how many times as fast as the others. Needs matplotlib, which only this module imports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from benchmarks.record import Record
from benchmarks.targets import target_of

_SPEED = "tok/s"
_MET, _MISSED, _FREE = "#2ca02c", "#d62728", "#1f77b4"


def ratios(records: Sequence[Record]) -> list[Record]:
    """The speeds that were measured beside another's, the last first: bars are drawn from the bottom."""
    return [each for each in records if each.unit == _SPEED and each.ratio is not None and "engine" not in each.name][
        ::-1
    ]


def draw(records: Sequence[Record], path: Path) -> None:
    """A bar from 1 to each ratio on a logarithmic scale, a black line where it has a target."""
    bars = ratios(records)
    if not bars:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(9, 0.8 + 0.3 * len(bars)))
    for height, each in enumerate(bars):
        assert each.ratio is not None
        target = target_of(each)
        colour = _FREE if target is None else _MET if target.reached(each) else _MISSED
        axes.barh(height, each.ratio - 1, left=1, color=colour, height=0.7)
        axes.text(each.ratio, height, f" {each.ratio:.2f}", va="center")
        if target is not None and target.least is not None:
            axes.plot([target.least] * 2, [height - 0.45, height + 0.45], color="black", linewidth=2)
    axes.set_yticks(range(len(bars)), [each.name for each in bars])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.margins(x=0.12, y=0.01)
    axes.set_title("times as fast; black: target")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
