"""The page: words, tables and pictures from runs."""

from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import jinja2

from atonce_sim.report.charts import charts
from atonce_sim.report.labels import labels, number
from atonce_sim.results import Run, Summary

__all__ = ["page"]

_MOST_BROKEN = 40


def page(runs: Sequence[Run]) -> str:
    """The whole page as HTML; everything that comes from a run is escaped."""
    names = labels(runs)
    template = resources.files("atonce_sim.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    off = [
        name
        for name, run in zip(names, runs, strict=True)
        if run.summary.crypto == "off" and run.summary.node == "ours"
    ]
    scenarios = list(dict.fromkeys(run.summary.scenario for run in runs))
    return environment.from_string(template).render(
        title=f"@Once: {', '.join(scenarios)}",
        scenarios=", ".join(scenarios),
        questions=list(dict.fromkeys(run.question for run in runs)),
        answers=_answers(runs),
        verdict=_verdict(runs),
        crypto_off="all runs" if len(off) == len(runs) > 1 else "; ".join(off),
        expectations=_expectations(runs),
        known=_known(runs),
        names=names,
        figures=_figures(runs),
        ratios=_ratios(runs),
        charts=charts(runs),
        broken=[
            f"{name}: {words}" if len(runs) > 1 else words
            for name, run in zip(names, runs, strict=True)
            for words in run.broken[:_MOST_BROKEN]
        ],
        unlisted=sum(max(0, run.summary.invariants.broken - len(run.broken[:_MOST_BROKEN])) for run in runs),
        runs=[
            {
                "name": name,
                "world": run.world,
                "command": run.command,
                "digest": run.summary.trace_digest,
                "cost": f"{run.summary.sim_s:,.0f} s simulated in {run.summary.wall_s:,.1f} s.",
            }
            for name, run in zip(names, runs, strict=True)
        ],
    )


def _answers(runs: Sequence[Run]) -> list[str]:
    """One for each scenario."""
    by_scenario: dict[str, list[Run]] = {}
    for run in runs:
        by_scenario.setdefault(run.summary.scenario, []).append(run)
    if len(by_scenario) == 1:
        return [_answer(runs)]
    return [f"{scenario}: {_answer(group)}" for scenario, group in by_scenario.items()]


def _answer(runs: Sequence[Run]) -> str:
    """In a few sentences, from the largest run of ours; a smaller one that did worse is not passed over."""
    ours = [run for run in runs if run.summary.node == "ours"] or list(runs)
    summary = max(ours, key=lambda run: run.summary.peers).summary
    who = (
        f"Among {summary.peers:,} peers"
        if summary.node == "ours"
        else f"Among {summary.peers:,} peers of stock kademlia"
    )
    lookups = summary.lookups
    if not lookups.attempted:
        return f"{who} no lookup left its node; see the figures below."
    words = f"{who}, {lookups.correct:,} of {lookups.attempted:,} lookups gave the right answer"
    if summary.lookup_rtts.p50 is not None and summary.lookup_s.p50 is not None:
        p50_ms = f"{summary.lookup_s.p50 * 1000:,.0f} ms"
        words += f"; half of them within {p50_ms} ({summary.lookup_rtts.p50:.1f} mean round trips)"
        if summary.lookup_s.p99 is not None:
            words += f", 99 of 100 within {summary.lookup_s.p99 * 1000:,.0f} ms"
    words += "."
    asked = [run.summary for run in ours if run.summary.lookups.attempted]
    worst = min(asked, key=lambda one: one.lookups.correct / one.lookups.attempted)
    if worst.lookups.correct * lookups.attempted < lookups.correct * worst.lookups.attempted:
        words += (
            f" The worst of {len(ours)} runs, {worst.peers:,} peers with seed {worst.seed}: "
            f"{worst.lookups.correct:,} of {worst.lookups.attempted:,}."
        )
    messages = summary.messages
    if messages.sent:
        words += (
            f" {messages.delivered:,} of {messages.sent:,} messages were delivered, "
            f"{messages.lost or 'none'} was lost, {messages.doubled or 'none'} came twice."
        )
    return words


def _verdict(runs: Sequence[Run]) -> dict[str, str]:
    ours = [run for run in runs if run.summary.node == "ours"] or list(runs)
    missed = sum(1 for run in ours for expectation in run.expectations if not expectation.held)
    broken = sum(run.summary.invariants.broken for run in ours)
    known = sum(
        1 for run in ours for expectation in run.expectations if expectation.held and expectation.expected_to_fail
    )
    if missed or broken:
        parts = [f"{missed} expectation{'s' * (missed != 1)} did not hold"] * bool(missed)
        parts += [f"{broken:,} looks found a rule broken"] * bool(broken)
        return {"kind": "bad", "words": "; ".join(parts)}
    if not all(run.summary.held for run in ours):
        return {"kind": "bad", "words": "a run is marked as not held, and does not say why"}
    if known:
        return {
            "kind": "known",
            "words": f"held, but for {known} that {'is' if known == 1 else 'are'} known not to hold yet",
        }
    return {"kind": "good", "words": "everything expected held"}


def _expectations(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row for each expectation, a cell for each run."""
    rows: dict[tuple[str, str], list[dict[str, str]]] = {}
    nothing = {"measured": "", "kind": "", "words": ""}
    for index, run in enumerate(runs):
        for expectation in run.expectations:
            kind, words = ("good", "✓") if expectation.held else ("bad", "✗")
            if expectation.expected_to_fail and expectation.held:
                kind, words = "known", "○"
            cells = rows.setdefault((expectation.what, expectation.wanted), [nothing] * len(runs))
            cells[index] = {"measured": expectation.measured, "kind": kind, "words": words}
    return [{"what": what, "wanted": wanted, "cells": cells} for (what, wanted), cells in rows.items()]


def _known(runs: Sequence[Run]) -> list[str]:
    """What is not expected to hold yet, once for each reason."""
    reasons = {
        expectation.expected_to_fail: expectation.what
        for run in runs
        for expectation in run.expectations
        if expectation.expected_to_fail and expectation.held
    }
    return [f"○ not yet expected to hold ({what}): {reason}" for reason, what in reasons.items()]


def _figures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    rows: list[tuple[str, Callable[[Summary], str]]] = [
        ("peers", lambda s: f"{s.peers:,}"),
        ("seed number", lambda s: str(s.seed)),
        ("node, level, crypto", lambda s: f"{s.node}, {s.level}, {s.crypto if s.node == 'ours' else 'none'}"),
        ("lookups correct", lambda s: f"{s.lookups.correct:,} of {s.lookups.attempted:,}"),
        ("stale / failed / wrong", lambda s: f"{s.lookups.stale:,} / {s.lookups.failed:,} / {s.lookups.wrong:,}"),
        ("from the own store (stale)", lambda s: f"{s.lookups.local:,} ({s.lookups.local_stale:,})"),
        ("lookup p50 / p90 / p99, ms", lambda s: _three(s.lookup_s, 1000)),
        ("in mean round trips", lambda s: _three(s.lookup_rtts)),
        ("requests per lookup", lambda s: number(s.requests_per_lookup)),
        ("hops, mean / p99", lambda s: f"{number(s.hops.mean)} / {number(s.hops.p99)}"),
        ("publish p50 / p90 / p99, ms", lambda s: _three(s.publish_s, 1000)),
        ("replicas at the k nearest", lambda s: number(s.replicas_mean)),
        ("messages delivered (lost, doubled)", lambda s: _messages(s)),
        ("bytes per node and second, mean / p99", lambda s: _two(s.bytes_per_node_s)),
        ("bytes to seeds unasked", lambda s: "–" if s.seed_share is None else f"{s.seed_share:.4%}"),
        ("looks at invariants (broken)", lambda s: f"{s.invariants.checked:,} ({s.invariants.broken:,})"),
        ("requests", lambda s: f"{s.requests:,}"),
        ("CPU per request, µs", lambda s: number(s.us_per_request)),
        ("memory per node, KiB", lambda s: "–" if s.bytes_per_node is None else number(s.bytes_per_node / 1024)),
        ("peak memory, MiB", lambda s: number(s.peak_rss_bytes / 2**20)),
        ("simulated / real seconds", lambda s: f"{s.sim_s:,.0f} / {s.wall_s:,.1f}"),
    ]
    return [{"name": name, "cells": [tell(run.summary) for run in runs]} for name, tell in rows]


def _ratios(runs: Sequence[Run]) -> list[dict[str, Any]]:
    stock = {
        (r.summary.scenario, r.summary.peers, r.summary.seed): r.summary for r in runs if r.summary.node == "stock"
    }
    names = ["CPU per request", "lookup p50", "lookup p99", "requests per lookup", "lookups found", "bytes per s"]
    rows = []
    for run in runs:
        ours = run.summary
        other = stock.get((ours.scenario, ours.peers, ours.seed))
        if ours.node != "ours" or other is None:
            continue
        pairs = [
            (ours.us_per_request, other.us_per_request),
            (ours.lookup_s.p50, other.lookup_s.p50),
            (ours.lookup_s.p99, other.lookup_s.p99),
            (ours.requests_per_lookup, other.requests_per_lookup),
            (_share(ours), _share(other)),
            (ours.bytes_per_node_s.get("mean"), other.bytes_per_node_s.get("mean")),
        ]
        values = [number(one / two) if one is not None and two else "–" for one, two in pairs]
        rows.append({"peers": f"{ours.peers:,}, crypto {ours.crypto}", "names": names, "cells": values})
    return rows


def _share(summary: Summary) -> float | None:
    return summary.lookups.correct / summary.lookups.attempted if summary.lookups.attempted else None


def _messages(summary: Summary) -> str:
    messages = summary.messages
    if not messages.sent:
        return "–"
    return f"{messages.delivered:,} of {messages.sent:,} ({messages.lost:,}, {messages.doubled:,})"


def _three(quantiles: Any, factor: float = 1.0) -> str:
    values = (quantiles.p50, quantiles.p90, quantiles.p99)
    return " / ".join(number(None if value is None else value * factor) for value in values)


def _two(values: dict[str, float | None]) -> str:
    return f"{number(values.get('mean'))} / {number(values.get('p99'))}"
