"""How `atonce sim compare` shows itself: how far it is, then both sides beside each other and a verdict."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from dht_atonce.cli.output import Output

if TYPE_CHECKING:
    from atonce_sim.reality.comparison import Comparison
    from atonce_sim.reality.procedure import OnProgress

__all__ = ["progress_of_sides", "show_comparison"]

_WORDS = {
    ("real", "join"): "Processes join",
    ("real", "lookups"): "They look each other up",
    ("simulated", "join"): "Simulated nodes join",
    ("simulated", "lookups"): "They look each other up",
}


@contextmanager
def progress_of_sides(output: Output) -> "Iterator[Callable[[str], OnProgress]]":
    """A bar for each step on a terminal, else a line for each; one JSON object per step for programs."""
    if output.as_json or not output.console.is_terminal:
        yield lambda side: _teller(output, side)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    # No thread draws it: there are none in the virtual world.
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=output.console, auto_refresh=False)

    def drawer(side: str) -> "OnProgress":
        tasks = {}

        def draw(step: str, done: int, of: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(_WORDS[side, step], total=of)
            bar.update(tasks[step], completed=done)
            bar.refresh()

        return draw

    with bar:
        yield drawer


def _teller(output: Output, side: str) -> "OnProgress":
    said = ""

    def tell(step: str, done: int, of: int) -> None:
        nonlocal said
        if step == said:
            return
        said = step
        if output.as_json:
            output.json({"event": "step", "side": side, "step": step, "of": of})
        else:
            output.console.print(f"{_WORDS[side, step]} ({of})")

    return tell


def show_comparison(comparison: "Comparison", output: Output) -> None:
    """The last line for programs, a table and a verdict for people."""
    if output.as_json:
        output.json(msgspec.to_builtins(comparison))
        return
    from rich.table import Table

    real, simulated = comparison.real, comparison.simulated
    console = output.console
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("real", "simulated", "off"):
        table.add_column(name, justify="right")
    table.add_row("hops", _number(real.hops), _number(simulated.hops), _share(comparison.hops_off))
    table.add_row(
        "requests per lookup",
        _number(real.requests_per_lookup),
        _number(simulated.requests_per_lookup),
        _share(comparison.requests_off),
    )
    for name, one, other in (
        ("  asked when it was found", _number(real.asked_per_lookup), _number(simulated.asked_per_lookup)),
        ("found", _share_found(real.found_share), _share_found(simulated.found_share)),
        ("lookup p50", _ms(real.lookup_s_p50), _ms(simulated.lookup_s_p50)),
        ("lookup p99", _ms(real.lookup_s_p99), _ms(simulated.lookup_s_p99)),
        ("round trip p50", _ms(real.round_trip_s_p50), _ms(simulated.round_trip_s_p50)),
        ("round trip p99", _ms(real.round_trip_s_p99), _ms(simulated.round_trip_s_p99)),
    ):
        table.add_row(f"[dim]{name}[/]", one, other, "")
    console.print(f"\n[bold]{comparison.peers} processes on loopback, and as many simulated[/]")
    console.print(
        f"[dim]k = {comparison.k}, seed {comparison.seed}; {real.lookups} lookups on each side left their node, "
        f"and {real.local} and {simulated.local} more did not[/]"
    )
    console.print(table)
    within = f"hops and requests within {comparison.tolerance:.0%} of what really was"
    console.print(f"[green bold]✓ {within}[/]" if comparison.held else f"[red bold]✗ not: {within}[/]")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"


def _share_found(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value * 1000:.1f} ms"
