"""The figures for people."""

from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.messages.children import Trial
from benchmarks.messages.judge import LINES, Verdict, figures_of, ratio

__all__ = ["show"]


def show(console: Console, trials: list[Trial], verdicts: list[Verdict]) -> None:
    """One table; then what holds, and what is missing and why."""
    console.print(_table(trials))
    for verdict in verdicts:
        if verdict.held is not None:
            mark = "[green]held  [/]" if verdict.held else "[red]missed[/]"
            best = "" if verdict.best is None else f" (best slices {verdict.best:.2f})"
            console.print(f"{mark} {verdict.target.text}: {verdict.figure:.2f}{best}")
    for reason in _reasons(trials):
        console.print(f"[dim]{reason}[/]")


def _table(trials: list[Trial]) -> Table:
    rows = {trial.plan.row for trial in trials}
    lines = [line for line in LINES if line.row in rows]
    table = Table(title="Messages between two processes (in brackets: over raw pyzmq's)", title_justify="left")
    table.add_column("")
    rivals = sorted({trial.plan.rival for trial in trials if trial.figures}, key=_rank)
    for rival in rivals:
        table.add_column(rival, justify="right")
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


def _reasons(trials: list[Trial]) -> list[str]:
    """Why figures are missing, each reason once."""
    reasons: dict[str, None] = {}
    for trial in trials:
        if trial.skipped is not None:
            word = "failed" if trial.failed else "left out"
            of = f", {trial.plan.row}" if trial.failed else ""
            reasons[f"{trial.plan.rival}{of} {word}: {trial.skipped}"] = None
    return list(reasons)
