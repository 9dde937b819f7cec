"""The figure of docs/placement.md. Needs matplotlib, which only this module imports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import PercentFormatter

from benchmarks.placement.world import Moment, Shock


def draw(moving: Sequence[Moment], still: Sequence[Moment], shocks: Sequence[Shock], path: Path) -> None:
    """The worst block's throughput over time, with and without rebalancing, and how many nodes moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True})
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 6), sharex=True, height_ratios=[3, 1])
    for history, colour, label in (
        (still, "#d62728", "newcomers choose, nobody moves"),
        (moving, "#1f77b4", "nodes move"),
    ):
        above.plot([m.hours for m in history], [m.least / m.bound for m in history], color=colour, label=label, lw=1)
    for shock in shocks:
        for axes in (above, below):
            axes.axvline(shock.hours, color="black", lw=0.8, ls=":")
        above.annotate(f" lost: {shock.name}", (shock.hours, 0.02), rotation=90, fontsize=8, va="bottom")
    above.yaxis.set_major_formatter(PercentFormatter(1.0))
    above.set(ylabel="worst block, of capacity / blocks", ylim=(0, 1))
    above.set_title(f"{moving[0].nodes} nodes over 126 blocks")
    above.legend(loc="lower left")
    below.plot([m.hours for m in moving], [m.moves for m in moving], color="#1f77b4", lw=1)
    below.set(xlabel="hours", ylabel="moves a minute")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
