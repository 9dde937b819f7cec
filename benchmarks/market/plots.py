"""The figures of docs/simulation.md. Needs matplotlib, which only this module imports."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import PercentFormatter

from benchmarks.market.report import MILLI, Fate, Summary
from benchmarks.market.rules import Rules
from benchmarks.market.sweep import Point
from corolla_core.protocol.deterrence import Odds, Temptation, stake_needed
from corolla_core.protocol.jury import MAX_CHALLENGER_SHARE
from corolla_core.protocol.units import Nectar

SEEN, UNSEEN, HONEST = "#1f77b4", "#d62728", "#2ca02c"


def draw_all(summary: Summary, points: Sequence[Point], rules: Rules, folder: Path) -> None:
    """Write the four PNGs into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True})
    for name, figure in (
        ("simulation_traffic", _traffic(summary)),
        ("simulation_time_to_slash", _times(summary)),
        ("simulation_net", _nets(summary)),
        ("simulation_deterrence", _deterrence(points, rules)),
    ):
        figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight")
        plt.close(figure)


def _traffic(summary: Summary) -> plt.Figure:
    figure, axes = plt.subplots(figsize=(8, 4))
    epochs = range(len(summary.traffic))
    axes.plot(epochs, summary.traffic[:, 0], color=SEEN, label="cheats that audits can see in their class")
    axes.plot(epochs, summary.traffic[:, 1], color=UNSEEN, label="cheats that audits cannot see in their class")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(xlabel="epoch (about an hour)", ylabel="share of served hops", ylim=(0, None))
    axes.set_title(f"Traffic that cheats served, mean of {summary.worlds} worlds")
    axes.legend()
    return figure


def _times(summary: Summary) -> plt.Figure:
    fates = [fate for fate in summary.fates if fate.seen and fate.to_slash is not None]
    figure, axes = plt.subplots(figsize=(8, 5.5))
    for y, fate in enumerate(reversed(fates)):
        flag, slash, late = fate.to_flag or 0, fate.to_slash or 0, fate.to_slash_p90 or 0
        axes.plot([slash, late], [y, y], color=SEEN, linewidth=2)
        axes.plot(slash, y, "o", color=SEEN, label="slashed: median to 90th percentile" if y == 0 else None)
        axes.plot(flag, y, "|", color="black", markersize=12, label="first failed audit, median" if y == 0 else None)
    axes.set_yticks(range(len(fates)), [fate.kind.name for fate in reversed(fates)])
    axes.set(xlabel="epochs (about an hour each) since the first cheat", xlim=(0, None))
    axes.set_title("How long a cheat lasts, where an audit can see it")
    axes.legend(loc="upper right")
    return figure


def _nets(summary: Summary) -> plt.Figure:
    fates = list(reversed(summary.fates))
    figure, axes = plt.subplots(figsize=(8, 7))
    axes.barh(range(len(fates)), [fate.net for fate in fates], color=[SEEN if fate.seen else UNSEEN for fate in fates])
    honest = [fate.honest for fate in fates]
    axes.plot(
        honest, range(len(fates)), "|", color=HONEST, markersize=16, markeredgewidth=3, label="honest, same classes"
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(fates)), [_label(fate) for fate in fates])
    axes.set(xlabel="net result of a node, milli-Nectar")
    axes.set_title("What cheating brought, all in (red: audits cannot see it in this class)")
    axes.legend(loc="lower right")
    return figure


def _deterrence(points: Sequence[Point], rules: Rules) -> plt.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    stakes, needed = [point.stake for point in points], points[0].needed
    left.plot(stakes, [point.gained for point in points], "o-", color=UNSEEN, label="gained by cheating, simulated")
    left.plot(stakes, [point.lost for point in points], "o-", color=SEEN, label="lost to slashing, simulated")
    left.axvline(needed / 3, color="grey", linestyle=":", label="inequality with m = 1")
    left.axvline(needed, color="black", linestyle="--", label="inequality with m = 3")
    left.set(xscale="log", yscale="log", xlabel="least stake, milli-Nectar", ylabel="milli-Nectar a node")
    left.set_title("Early exit that behaves in quarantine")
    left.legend(fontsize=8)
    saved = Nectar(rules.cost * rules.mean_tokens * rules.blocks * 6 // 10)
    rates = [Fraction(n, 1000) for n in (2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500)]
    for power in (Fraction(1), Fraction(1, 2), Fraction(1, 10)):
        asked = [
            stake_needed(Odds(rate, power), Temptation(saved), own_share=MAX_CHALLENGER_SHARE) / MILLI for rate in rates
        ]
        right.plot([float(rate) for rate in rates], asked, label=f"detection power q = {float(power):g}")
    slashable = rules.min_stake * rules.slash_numerics / MILLI
    right.axhline(float(slashable), color="grey", linestyle=":", label="slashable of the least stake here")
    right.axvline(float(rules.audit), color="grey", linestyle="--", label="audit probability here")
    right.set(xscale="log", yscale="log", xlabel="audit probability p", ylabel="slashable stake, milli-Nectar")
    right.set_title("Slashable stake that deters early exit, m = 3")
    right.legend(fontsize=8)
    figure.tight_layout()
    return figure


def _label(fate: Fate) -> str:
    return fate.kind.name if len(fate.classes) == 4 else f"{fate.kind.name} ({', '.join(fate.classes)})"
