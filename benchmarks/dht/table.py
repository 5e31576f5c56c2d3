"""The figures for people."""

from rich.console import Console
from rich.table import Table

from benchmarks.dht.children import Trial
from benchmarks.dht.judge import MEASURES, SMALL, Measure, Verdict, medians, ratio
from benchmarks.side_by_side import empty_table, say_once, say_verdict, why_missing

__all__ = ["show"]


def show(console: Console, trials: list[Trial], verdicts: list[Verdict]) -> None:
    """A table for single requests and one for each size; then what holds, and what is missing and why."""
    for nodes in sorted({trial.plan.nodes for trial in trials}):
        console.print(_table(trials, nodes))
    for verdict in verdicts:
        if verdict.held is not None:
            say_verdict(console, verdict.held, f"{verdict.target.text}: {_number(verdict.figure, 2)}")
    say_once(console, [reason for trial in trials for reason in _reasons(trial)])


def _table(trials: list[Trial], nodes: int) -> Table:
    rivals = sorted({t.plan.rival for t in trials if t.plan.nodes == nodes and t.figures}, key=_rank)
    title = f"{nodes} nodes in one process on one core" if nodes else "Single requests, both ends in one process"
    table = empty_table(f"{title} (in brackets: ours over stock's)", rivals)
    columns = [medians(trials, rival, nodes) for rival in rivals]
    for measure in MEASURES if nodes else SMALL:
        cells = [_cell(measure, column.get(measure.key)) for column in columns]
        for at, rival in enumerate(rivals):
            over = ratio(trials, rival, nodes, measure.key) if rival.startswith("ours") else None
            cells[at] += f" ({over:.2f})" if over is not None and not measure.is_share else ""
        table.add_row(measure.label, *cells)
    return table


def _cell(measure: Measure, figure: float | None) -> str:
    if figure is None:
        return "–"
    return f"{figure * 100:.1f} %" if measure.is_share else _number(figure, measure.digits)


def _number(figure: float | None, digits: int) -> str:
    return "–" if figure is None else f"{figure:,.{digits if figure < 1000 else 0}f}"


def _rank(rival: str) -> tuple[bool, bool, str]:
    return (not rival.startswith("ours"), rival != "stock", rival)


def _reasons(trial: Trial) -> list[str]:
    """Why figures are missing."""
    skipped = "skipped: "
    return [
        *why_missing(trial, trial.plan.rival),
        *(
            f"{trial.plan.rival}, {key.removeprefix(skipped)}: {why}"
            for key, why in trial.figures.items()
            if key.startswith(skipped)
        ),
    ]
