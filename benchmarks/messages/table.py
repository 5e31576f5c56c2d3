"""The figures for people."""

from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.messages.children import Trial
from benchmarks.messages.judge import LINES, Verdict, figures_of, ratio
from benchmarks.side_by_side import empty_table, say_once, say_verdict, why_missing

__all__ = ["show"]


def show(console: Console, trials: list[Trial], verdicts: list[Verdict]) -> None:
    """One table; then what holds, and what is missing and why."""
    console.print(_table(trials))
    for verdict in verdicts:
        if verdict.held is not None:
            best = "" if verdict.best is None else f" (best slices {verdict.best:.2f})"
            say_verdict(console, verdict.held, f"{verdict.target.text}: {verdict.figure:.2f}{best}")
    say_once(console, [why for trial in trials for why in why_missing(trial, f"{trial.plan.rival}, {trial.plan.row}")])


def _table(trials: list[Trial]) -> Table:
    rows = {trial.plan.row for trial in trials}
    lines = [line for line in LINES if line.row in rows]
    rivals = sorted({trial.plan.rival for trial in trials if trial.figures}, key=_rank)
    table = empty_table("Messages between two processes (in brackets: over raw pyzmq's)", rivals)
    for line in lines:
        table.add_row(line.label, *(_cell(trials, rival, line.row, line.measure) for rival in rivals))
    return table


def _cell(trials: list[Trial], rival: str, row: str, measure: str) -> str:
    figures = figures_of(trials, rival, row, measure)
    if not figures:
        return "–"
    figure, over = median(figures.values()), ratio(trials, rival, row, measure)
    text = f"{figure:,.{0 if figure >= 100 else 1}f}"
    return text if over is None or rival == "raw" else f"{text} ({over:.2f})"


def _rank(rival: str) -> tuple[bool, bool, str]:
    return (rival != "raw", not rival.startswith("ours"), rival)
