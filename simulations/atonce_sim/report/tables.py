"""The figures of runs as CSV, for spreadsheets and other programs."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from atonce_sim.report.labels import labels
from atonce_sim.results import Run, Sample

__all__ = ["tables"]


def tables(runs: Sequence[Run]) -> dict[str, str]:
    """File name → its text."""
    names = labels(runs)
    named = list(zip(names, runs, strict=True))
    summaries = [flat(msgspec.to_builtins(run.summary)) for run in runs]
    samples = [{"run": name, **msgspec.to_builtins(sample)} for name, run in named for sample in run.samples]
    return {
        "summary.csv": _csv([], [{"run": name, **row} for name, row in zip(names, summaries, strict=True)]),
        "samples.csv": _csv(["run", *Sample.__struct_fields__], samples),
        "lookups.csv": _csv(
            ["run", "seconds"], ({"run": name, "seconds": value} for name, run in named for value in run.lookup_s)
        ),
        "nodes.csv": _csv(
            ["run", "kind", "bytes_per_s"],
            (
                {"run": name, "kind": kind, "bytes_per_s": value}
                for name, run in named
                for kind, values in (("peer", run.node_bytes_s), ("seed", run.seed_bytes_s))
                for value in values
            ),
        ),
    }


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as `outer.inner`."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            found |= flat(inner, f"{prefix}{key}.")
        else:
            found[prefix + key] = inner
    return found


def _csv(columns: list[str], rows: Iterable[dict[str, Any]]) -> str:
    """`columns` first, then whatever else a row has: no two runs need have the same."""
    rows = list(rows)
    columns = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _tame(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _tame(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula is given a quote first."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
