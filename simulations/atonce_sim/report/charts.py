"""The pictures of a report, as SVG. Each answers one question, which its caption asks."""

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from atonce_sim.report.labels import COLOURS, labels, number
from atonce_sim.results import Run

__all__ = ["Chart", "charts"]

_POINTS = 400  # of a curve
_TIMELINES = 4
_MARKERS = ("o", "s", "^", "D")
_WIDE, _NARROW = (9.0, 3.6), (5.6, 3.6)
_INK = "#7a7f87"  # axes and words: legible on white and on near black
_VERDICTS = (("correct", "#009E73"), ("stale", "#E69F00"), ("failed", "#D55E00"), ("wrong", "#AA3377"))

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "atonce",  # the same picture has the same bytes
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.18,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture and the words under it."""

    title: str
    svg: str
    caption: str


def charts(runs: Sequence[Run]) -> list[Chart]:
    """All pictures for which these runs have figures."""
    named = list(zip(labels(runs), runs, COLOURS * (len(runs) // len(COLOURS) + 1), strict=False))
    makers: list[Callable[[list[Any]], Chart | None]] = [
        _latency,
        _over_size,
        _success,
        _health,
        _traffic,
        _seed_load,
        _profile,
    ]
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # whatever the reader's own matplotlibrc says
        mpl.rcParams.update(_STYLE)
        # The reader's browser has the fonts; matplotlib only measures with its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn = [chart for maker in makers if (chart := maker(named)) is not None]
    return [replace(chart, svg=_for_page(chart.svg, f"p{index}")) for index, chart in enumerate(drawn)]


def _latency(named: list[tuple[str, Run, str]]) -> Chart | None:
    drawn = [(name, run, colour) for name, run, colour in named if run.lookup_s]
    if not drawn:
        return None
    figure = Figure(figsize=_WIDE)
    axes = figure.add_subplot()
    slowest = max(max(run.lookup_s) for _, run, _ in drawn)
    fastest = max(1e-4, min(min(run.lookup_s) for _, run, _ in drawn))
    for name, run, colour in drawn:
        ordered = sorted(run.lookup_s)
        step = max(1, len(ordered) // _POINTS)
        ranks = sorted({*range(0, len(ordered), step), len(ordered) - 1})
        axes.step(
            [ordered[rank] * 1000 for rank in ranks],
            [100 * (rank + 1) / len(ordered) for rank in ranks],
            where="post",
            color=colour,
            label=name,
        )
    if slowest / fastest > 30:
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
    rtts = {round(run.mean_rtt_s, 4) for _, run, _ in drawn if run.mean_rtt_s}
    if len(rtts) == 1:
        rtt_ms = rtts.pop() * 1000
        axes.axvline(rtt_ms, color=_INK, linestyle=":", linewidth=1)
        axes.annotate("one mean round trip", (rtt_ms, 102), color=_INK, fontsize=8, ha="center", annotation_clip=False)
    axes.set_xlabel("lookup took, simulated ms")
    axes.set_ylabel("% of lookups as quick as that")
    axes.set_ylim(0, 101)
    _legend(axes, len(drawn))
    return Chart(
        "How long does a lookup take?",
        _svg(figure),
        "Read it from left to right: at 200 ms the curve tells which share of lookups was done within 200 ms. Steeper "
        "and farther left is better; a long tail to the right is what users notice. Answers from the own store are "
        "left out.",
    )


def _over_size(named: list[tuple[str, Run, str]]) -> Chart | None:
    by_kind: dict[str, dict[int, tuple[Run, str]]] = {}
    for _, run, colour in named:
        if run.summary.hops.mean is not None:
            by_kind.setdefault(f"{run.summary.scenario}, {run.summary.node}", {})[run.summary.peers] = (run, colour)
    if max((len(sizes) for sizes in by_kind.values()), default=0) < 2:
        return None
    figure = Figure(figsize=_WIDE)
    left, right = figure.subplots(1, 2)
    guide = sorted({count for sizes in by_kind.values() for count in sizes})
    left.plot(guide, [math.log2(count) for count in guide], ":", color=_INK, alpha=0.5, label="log2 of the size")
    for (kind, sizes), marker in zip(by_kind.items(), _MARKERS * len(by_kind), strict=False):
        peers = sorted(sizes)
        drawn = [sizes[count] for count in peers]
        left.plot(
            peers, [run.summary.hops.mean for run, _ in drawn], "-", color=_INK, marker=marker, label=f"{kind}: mean"
        )
        left.plot(
            peers,
            [_or_gap(run.summary.hops.p99) for run, _ in drawn],
            "--",
            color=_INK,
            alpha=0.6,
            label=f"{kind}: p99",
        )
        asked = [_or_gap(run.summary.requests_per_lookup) for run, _ in drawn]
        right.plot(peers, asked, "-", color=_INK, marker=marker, label=kind)
        for (run, colour), count, requests in zip(drawn, peers, asked, strict=True):
            left.plot(count, run.summary.hops.mean, marker, color=colour, markersize=8)
            right.plot(count, requests, marker, color=colour, markersize=8)
    for axes, words in ((left, "hops"), (right, "requests per lookup")):
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
        axes.set_xlabel("peers in the network")
        axes.set_ylabel(words)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    figure.tight_layout()
    return Chart(
        "What does a larger network cost?",
        _svg(figure),
        "Hops: how often an asker was referred on until it reached a node that had the record (1: it knew that node). "
        "Kademlia promises that hops grow no faster than the logarithm of the size: the dotted line.",
    )


def _success(named: list[tuple[str, Run, str]]) -> Chart | None:
    drawn = [(name, run, colour) for name, run, colour in named if len(run.samples) > 1]
    if not drawn:
        return None
    left_out, drawn = len(drawn) - _TIMELINES, drawn[:_TIMELINES]
    figure = Figure(figsize=(9.0, 2.6 * len(drawn) + 0.5))
    grid = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
    for axes, (name, run, own) in zip(grid, drawn, strict=True):
        times = [sample.at_s for sample in run.samples]
        widths = [at - before for at, before in zip(times, [0.0, *times], strict=False)]
        asked = [sum(getattr(sample, verdict) for verdict, _ in _VERDICTS) for sample in run.samples]
        floor = [0.0] * len(times)
        for verdict, colour in _VERDICTS:
            shares = [
                100 * getattr(sample, verdict) / count if count else 0.0
                for sample, count in zip(run.samples, asked, strict=True)
            ]
            if any(shares):
                begins = [at - width for at, width in zip(times, widths, strict=True)]
                axes.bar(
                    begins, shares, width=widths, bottom=floor, align="edge", color=colour, label=verdict, alpha=0.55
                )
                floor = [low + share for low, share in zip(floor, shares, strict=True)]
        axes.set_ylim(0, 104)
        axes.set_xlim(0, times[-1])
        axes.set_ylabel("% of lookups")
        _phases(axes, run)
        live = axes.twinx()
        live.plot(times, [sample.live for sample in run.samples], color=own, linewidth=1.6)
        live.set_ylabel("peers that are up", color=own)
        live.set_ylim(bottom=0)
        live.grid(visible=False)
        axes.set_title(name, loc="left", fontsize=9.5, pad=16)
        if any(asked):
            axes.legend(loc="lower right", fontsize=8)
    grid[-1].set_xlabel("simulated seconds")
    figure.tight_layout()
    return Chart(
        "Who is found, and when?",
        _svg(figure),
        "Coloured bars: what became of the lookups that ended in each interval (no bar: there were none). The line: "
        "how many peers were up (right axis). The names above say what the scenario was doing."
        + (f" Left out: {left_out} more runs, which samples.csv has." if left_out > 0 else ""),
    )


def _health(named: list[tuple[str, Run, str]]) -> Chart | None:
    drawn = [(name, run, colour) for name, run, colour in named if len(run.samples) > 1]
    if not drawn:
        return None
    figure = Figure(figsize=(9.0, 3.4))
    measures = [
        ("neighbours_known", 100, "neighbours known, %"),
        ("dead_seats", 100, "dead contacts, % of seats"),
        ("seats_mean", 1, "contacts per node"),
    ]
    measures = [
        measure
        for measure in measures
        if any(getattr(sample, measure[0]) is not None for _, run, _ in drawn for sample in run.samples)
    ]
    if not measures:
        return None
    for axes, (field, factor, words) in zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True):
        for name, run, colour in drawn:
            points = [(s.at_s, getattr(s, field) * factor) for s in run.samples if getattr(s, field) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=name, linewidth=1.4)
        axes.set_title(words, loc="left", fontsize=9.5)
        axes.set_xlabel("simulated s")
        axes.set_ylim(bottom=0)
        if factor == 100:
            axes.set_ylim(0, max(5.0, axes.get_ylim()[1]) if field == "dead_seats" else 104)
    if len(drawn) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=min(4, len(drawn)), fontsize=8)
    figure.tight_layout(rect=(0, 0.09 if len(drawn) > 1 else 0, 1, 1))
    return Chart(
        "How healthy are the routing tables?",
        _svg(figure),
        "Neighbours known: the share of the nodes truly nearest to a node that it has in its table; below 95 % records "
        "are stored where nobody looks. Dead contacts: seats of nodes that are gone; each costs a wait.",
    )


def _traffic(named: list[tuple[str, Run, str]]) -> Chart | None:
    drawn = [(name, run, colour) for name, run, colour in named if run.node_bytes_s]
    if not drawn:
        return None
    figure = Figure(figsize=_NARROW)
    axes = figure.add_subplot()
    for name, run, colour in drawn:
        ordered = sorted(run.node_bytes_s)
        step = max(1, len(ordered) // _POINTS)
        ranks = sorted({*range(0, len(ordered), step), len(ordered) - 1})
        axes.plot(
            [ordered[rank] for rank in ranks],
            [100 * (rank + 1) / len(ordered) for rank in ranks],
            color=colour,
            label=name,
        )
    axes.set_xlabel("bytes sent per second, mean over a node's life")
    axes.set_ylabel("% of nodes that send no more")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 101)
    _legend(axes, len(drawn))
    return Chart(
        "What does it cost to take part?",
        _svg(figure),
        "UDP payload and frames that each node sent, per simulated second that it was up. A short and busy run costs "
        "more than a day at rest: joining is dear, staying is cheap.",
    )


def _seed_load(named: list[tuple[str, Run, str]]) -> Chart | None:
    drawn = [(name, run, colour) for name, run, colour in named if run.seed_bytes_s and run.node_bytes_s]
    if not drawn:
        return None
    figure = Figure(figsize=_NARROW)
    axes = figure.add_subplot()
    figure.set_size_inches(5.6, 0.9 + 0.9 * len(drawn))
    ticks = []
    for place, (name, run, colour) in enumerate(drawn):
        ordered = sorted(run.node_bytes_s)
        bars = (
            (f"{name}: a seed", max(run.seed_bytes_s)),
            ("a busy peer (p99)", ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)]),
            ("a peer, on average", sum(ordered) / len(ordered)),
        )
        for row, (words, value) in enumerate(bars):
            ticks.append((4 * place + row, words))
            axes.barh(4 * place + row, value, color=colour, alpha=1 if row == 0 else 0.55)
            axes.annotate(f" {number(value)}", (value, 4 * place + row), va="center", fontsize=8)
    axes.set_yticks([at for at, _ in ticks], [words for _, words in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("bytes sent per second")
    axes.grid(visible=False, axis="y")
    shares = [run.summary.seed_share for _, run, _ in drawn if run.summary.seed_share is not None]
    share = f" Peers that were in sent seeds {max(shares):.3%} of all bytes of their own accord." if shares else ""
    return Chart(
        "How much of a server is the seed?",
        _svg(figure),
        "A seed lets newcomers in and does nothing else: its load is that of the arrivals, whatever the network does."
        + share,
    )


def _profile(named: list[tuple[str, Run, str]]) -> Chart | None:
    profiled = [(name, run, colour) for name, run, colour in named if run.profile]
    if not profiled:
        return None
    name, run, own = profiled[-1]
    lines = run.profile[::-1]
    figure = Figure(figsize=(7.5, 0.28 * len(lines) + 0.9))
    axes = figure.add_subplot()
    axes.barh([line.where for line in lines], [100 * line.share for line in lines], color=own, alpha=0.8)
    axes.set_xlabel("% of CPU time")
    axes.grid(visible=False, axis="y")
    figure.tight_layout()
    return Chart(
        "Where does the time go?",
        _svg(figure),
        f"CPU time by file, {name}. Profiling itself makes small functions look dearer than they are.",
    )


def _phases(axes: Any, run: Run) -> None:
    """Names above, and lines between, the steps of a scenario."""
    begins, spans = 0.0, list[tuple[str, float, float]]()
    for sample, following in zip(run.samples, [*run.samples[1:], None], strict=True):
        if following is None or following.phase != sample.phase:
            spans.append((sample.phase, begins, sample.at_s))
            begins = sample.at_s
    whole = run.samples[-1].at_s or 1.0
    free_from = -math.inf
    for phase, begin, end in spans:
        axes.axvline(begin, color=_INK, linewidth=0.6, alpha=0.6)
        if spans.index((phase, begin, end)) % 2:
            axes.axvspan(begin, end, color=_INK, alpha=0.08, linewidth=0, zorder=0)
        width = 0.0085 * len(phase) * whole
        if begin >= free_from and end - begin > width * 0.4:
            axes.text(begin, 105.5, f" {phase}", fontsize=7.5, va="bottom")
            free_from = begin + width * 1.1


def _legend(axes: Any, count: int) -> None:
    if count > 1:
        axes.legend(fontsize=8)


def _plain_ticks(axis: Any) -> None:
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _or_gap(value: float | None) -> float:
    """A line is interrupted where nothing was measured."""
    return math.nan if value is None else value


def _for_page(svg: str, prefix: str) -> str:
    """Inside a page: names of its own, and no style that would hold for all of the page."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    names = r'(\bid="|href="#|url\(#)'
    return re.sub(r"<[^>]*>", lambda tag: re.sub(names, rf"\g<1>{prefix}-", tag[0]), svg)  # in tags, not in words
