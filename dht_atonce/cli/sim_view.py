"""How a simulation shows itself: a bar while it runs, figures and a verdict afterwards."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from dht_atonce.cli.output import Output, escape

if TYPE_CHECKING:
    from atonce_sim.results import Quantiles, Run
    from atonce_sim.simulation import Options, Progress

__all__ = ["progress_view", "ratios", "show_ratios", "show_run", "summary_object"]

_REDRAW_S = 0.2
_MOST_WORDS = 10  # broken invariants shown to people; programs get all that were kept


@contextmanager
def progress_view(output: Output, options: "Options") -> "Iterator[Callable[[Progress], None]]":
    """A bar with simulated and real time on a terminal, one JSON object per step for programs, else nothing."""
    if output.as_json:
        last = ""

        def tell(progress: "Progress") -> None:
            nonlocal last
            if progress.step != last:
                last = progress.step
                output.json({"event": "step", "step": progress.step, "sim_s": progress.now_s, "up": progress.up})

        yield tell
        return
    if not output.console.is_terminal:
        yield lambda _: None
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    # No thread draws it: there are none in the virtual world.
    bar = Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        console=output.console,
        auto_refresh=False,
        transient=True,
    )
    task = bar.add_task(f"{options.name}, {options.peers} peers ({options.node})", total=None, words="")
    drawn = 0.0

    def draw(progress: "Progress") -> None:
        nonlocal drawn
        now = time.monotonic()
        if now - drawn < _REDRAW_S:
            return
        drawn = now
        words = f"{progress.step}: {progress.now_s:,.0f} s simulated, {progress.up} up, {progress.lookups} lookups"
        bar.update(task, total=progress.end_s or None, completed=progress.now_s, words=words)
        bar.refresh()

    with bar:
        yield draw


def summary_object(run: "Run") -> dict[str, Any]:
    """The last line for programs: the summary, what was expected, and how to see it again."""
    summary: dict[str, Any] = msgspec.to_builtins(run.summary)
    summary["expectations"] = msgspec.to_builtins(run.expectations)
    summary["broken"] = run.broken
    summary["replay"] = run.command
    return summary


def show_run(run: "Run", output: Output) -> None:
    """Figures and verdict for people."""
    from rich.table import Table

    summary, console = run.summary, output.console
    console.print(f"\n[bold]{escape(run.question)}[/]")
    crypto = "" if summary.crypto == "real" or summary.node == "stock" else ", [yellow]encryption off[/]"
    who = f"{summary.peers} peers ({summary.node}, {summary.level})"
    console.print(f"[dim]{who}, seed {summary.seed}{crypto}; {escape(run.world)}[/]")
    table = Table.grid(padding=(0, 2))
    for name, words in _figures(run):
        table.add_row(f"[dim]{name}[/]", words)
    console.print(table)
    for expectation in run.expectations:
        if expectation.expected_to_fail and expectation.held:
            mark, words = "[yellow]○[/]", f" [dim]known not to hold yet: {escape(expectation.expected_to_fail)}[/]"
        else:
            mark, words = ("[green]✓[/]", "") if expectation.held else ("[red]✗[/]", "")
        console.print(
            f"{mark} {escape(expectation.what)} {escape(expectation.wanted)}: {escape(expectation.measured)}{words}"
        )
    invariants = summary.invariants
    mark = "[red]✗[/]" if invariants.broken else "[green]✓[/]"
    console.print(f"{mark} invariants: {invariants.broken} of {invariants.checked:,} looks found one broken")
    for words in run.broken[:_MOST_WORDS]:
        console.print(f"  [red]✗[/] {escape(words)}")
    verdict = "[green bold]✓ it holds[/]" if summary.held else "[red bold]✗ it does not hold[/]"
    console.print(
        f"{verdict} [dim]{summary.sim_s:,.0f} s simulated in {summary.wall_s:.1f} s; "
        f"this replays it: {escape(run.command)}[/]"
    )


def _figures(run: "Run") -> list[tuple[str, str]]:
    summary = run.summary
    lookups, messages = summary.lookups, summary.messages
    rows = []
    if lookups.attempted or lookups.local:
        wrong = ", ".join(
            f"[red]{number} {name}[/]"
            for name, number in (("stale", lookups.stale), ("failed", lookups.failed), ("wrong", lookups.wrong))
            if number
        )
        stale = f", {lookups.local_stale} of them stale" if lookups.local_stale else ""
        local = f" [dim](and {lookups.local} from the own store{stale})[/]" if lookups.local else ""
        rows.append(
            ("lookups", f"{lookups.correct} of {lookups.attempted} correct{', ' if wrong else ''}{wrong}{local}")
        )
        rows.append(("lookup time", f"{_ms(summary.lookup_s)}; in mean round trips {_plain(summary.lookup_rtts)}"))
        rows.append(("hops", f"{_number(summary.hops.mean)} on average, p99 {_number(summary.hops.p99)}"))
        rows.append(("requests per lookup", _number(summary.requests_per_lookup)))
    rows.append(("publish time", _ms(summary.publish_s)))
    if summary.replicas_mean is not None:
        rows.append(("replicas", f"{summary.replicas_mean:.1f} of the k closest hold the newest record"))
    if messages.sent:
        rows.append(
            (
                "messages",
                f"{messages.delivered} of {messages.sent} delivered, {messages.lost} lost, {messages.doubled} doubled",
            )
        )
    rows.append(("traffic", f"{_number(summary.bytes_per_node_s['mean'])} B/s per node"))
    if summary.seed_share is not None:
        rows.append(("to seeds unasked", f"{summary.seed_share:.4%} of all bytes"))
    if summary.bytes_per_node is not None:
        rows.append(("memory", f"{summary.bytes_per_node / 1024:.1f} KiB per node"))
    if summary.us_per_request is not None:
        rows.append(("cost", f"{summary.us_per_request:.0f} µs of CPU per request ({summary.requests:,} requests)"))
    return rows


def ratios(ours: "Run", stock: "Run") -> dict[str, float | None]:
    """Ours over stock's: below 1 is better, but for shares of correct lookups."""

    def ratio(one: float | None, other: float | None) -> float | None:
        return one / other if one is not None and other else None

    a, b = ours.summary, stock.summary
    return {
        "us_per_request": ratio(a.us_per_request, b.us_per_request),
        "lookup_s_p50": ratio(a.lookup_s.p50, b.lookup_s.p50),
        "lookup_s_p99": ratio(a.lookup_s.p99, b.lookup_s.p99),
        "requests_per_lookup": ratio(a.requests_per_lookup, b.requests_per_lookup),
        "correct_share": ratio(
            ratio(a.lookups.correct, a.lookups.attempted), ratio(b.lookups.correct, b.lookups.attempted)
        ),
        "bytes_per_node": ratio(a.bytes_per_node, b.bytes_per_node),
        "bytes_per_node_s": ratio(a.bytes_per_node_s["mean"], b.bytes_per_node_s["mean"]),
    }


def show_ratios(ours: "Run", stock: "Run", output: Output) -> None:
    """For people."""
    output.console.print("\n[bold]Ours over stock kademlia, in this run[/]")
    for name, value in ratios(ours, stock).items():
        output.console.print(f"[dim]{name:22}[/] {'–' if value is None else f'{value:.3f}'}")


def _ms(quantiles: "Quantiles") -> str:
    parts = [
        f"{name} {value * 1000:,.0f}"
        for name, value in (("p50", quantiles.p50), ("p90", quantiles.p90), ("p99", quantiles.p99))
        if value is not None
    ]
    return ", ".join(parts) + " ms" if parts else "–"


def _plain(quantiles: "Quantiles") -> str:
    return (
        ", ".join(
            f"{name} {value:.2f}"
            for name, value in (("p50", quantiles.p50), ("p90", quantiles.p90), ("p99", quantiles.p99))
            if value is not None
        )
        or "–"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}".rstrip("0").rstrip(".")
