"""How runs are called and coloured, the same everywhere on a page."""

from collections.abc import Sequence

from atonce_sim.results import Run

__all__ = ["COLOURS", "labels", "number"]

# Okabe and Ito's palette, which colour-blind readers can tell apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#666666", "#8a7a00")


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run, of what differs between them."""
    parts: list[list[str]] = [[] for _ in runs]
    kinds = [
        ([run.summary.scenario for run in runs], "{}"),
        ([f"{run.summary.peers:,}" for run in runs], "{} peers"),
        ([run.summary.node for run in runs], "{}"),
        ([run.summary.level for run in runs], "level {}"),
        ([run.summary.crypto if run.summary.node == "ours" else "" for run in runs], "crypto {}"),
        ([str(run.summary.seed) for run in runs], "seed {}"),
    ]
    for values, form in kinds:
        if len({value for value in values if value}) > 1:
            for part, value in zip(parts, values, strict=True):
                if value:
                    part.append(form.format(value))
    named = [", ".join(part) or f"{run.summary.peers:,} peers" for part, run in zip(parts, runs, strict=True)]
    return [name if named.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(named)]


def number(value: float | None, digits: int = 3) -> str:
    """`value` with about so many digits that count, for people; a dash for None."""
    if value is None:
        return "–"
    value = float(f"{value:.{digits}g}") if abs(value) < 10**digits else value  # 999.6 is 1,000, not 1e+03
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
