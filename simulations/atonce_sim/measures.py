"""What is counted during a run, in all and for each step."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from atonce_sim.residents import Found
from atonce_sim.results import Hops, LookupCounts, MessageCounts, Quantiles
from atonce_sim.truth import Verdict

__all__ = ["RUN_FIGURES", "STEP_FIGURES", "Measures", "StepMeasures", "mean", "quantile", "quantiles"]


def quantile(values: Sequence[float], share: float) -> float | None:
    """By nearest rank: a value that was measured, not one between two."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def quantiles(values: Sequence[float]) -> Quantiles:
    """The three that a summary has."""
    return Quantiles(quantile(values, 0.5), quantile(values, 0.9), quantile(values, 0.99))


def mean(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return sum(values) / len(values) if values else None


@dataclass(slots=True)
class StepMeasures:
    """Of one step, or of the whole run."""

    verdicts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    local: int = 0
    local_stale: int = 0
    forged: int = 0
    """Answers that nobody signed whom the key belongs to, given to an app."""
    lookup_s: list[float] = field(default_factory=list)
    """Of lookups that left the node and were answered correctly or with a stale record."""
    hops: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    publish_s: list[float] = field(default_factory=list)
    wanted: int = 0
    """Peers that were to join or come back."""
    entered: int = 0
    enter_s: list[float] = field(default_factory=list)
    sent: int = 0
    delivered: int = 0
    lost: int = 0
    doubled: int = 0
    unknown: int = 0

    def on_lookup(self, found: Found, verdict: Verdict) -> None:
        """A lookup ended."""
        self.forged += found.answer is not None and not found.answer.genuine
        if found.local:
            self.local += 1
            self.local_stale += verdict is Verdict.STALE
            return
        self.verdicts[verdict] += 1
        self.requests.append(found.requests)
        if verdict in (Verdict.CORRECT, Verdict.STALE):
            self.lookup_s.append(found.elapsed_s)
            if found.hops:
                self.hops.append(found.hops)

    def lookups(self) -> LookupCounts:
        counts = {verdict.value: count for verdict, count in self.verdicts.items()}
        return LookupCounts(
            attempted=sum(self.verdicts.values()), local=self.local, local_stale=self.local_stale, **counts
        )

    def messages(self) -> MessageCounts:
        return MessageCounts(self.sent, self.delivered, self.lost, self.doubled, self.unknown)

    def hop_counts(self) -> Hops:
        return Hops(mean(self.hops), quantile(self.hops, 0.99))

    def figures(self, mean_rtt_s: float) -> dict[str, float | None]:
        """What expectations may name: each count, and as a share of what was attempted."""
        lookups, figures = self.lookups(), dict[str, float | None]()
        for verdict in Verdict:
            count = self.verdicts[verdict]
            figures[f"lookups.{verdict.value}"] = count
            figures[f"lookups.{verdict.value}_share"] = count / lookups.attempted if lookups.attempted else None
        figures["forged"] = self.forged
        figures["lookups.attempted"] = lookups.attempted
        figures["lookups.local"] = lookups.local
        figures["lookups.local_stale_share"] = self.local_stale / self.local if self.local else None
        for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99")):
            figures[f"lookup_s.{name}"] = seconds = quantile(self.lookup_s, share)
            figures[f"lookup_rtts.{name}"] = seconds / mean_rtt_s if seconds is not None and mean_rtt_s else None
            figures[f"publish_s.{name}"] = seconds = quantile(self.publish_s, share)
            figures[f"publish_rtts.{name}"] = seconds / mean_rtt_s if seconds is not None and mean_rtt_s else None
            figures[f"enter_s.{name}"] = quantile(self.enter_s, share)
        figures["requests_per_lookup"] = mean(self.requests)
        figures["hops.mean"], figures["hops.p99"] = mean(self.hops), quantile(self.hops, 0.99)
        figures["entered_share"] = self.entered / self.wanted if self.wanted else None
        figures["messages.sent"] = self.sent
        figures["messages.delivered_share"] = self.delivered / self.sent if self.sent else None
        figures["messages.lost"], figures["messages.doubled"] = self.lost, self.doubled
        figures["messages.unknown"] = self.unknown
        return figures


STEP_FIGURES = frozenset(StepMeasures().figures(1.0))
"""What an expectation may name of one step, and of the whole run."""
RUN_FIGURES = STEP_FIGURES | {
    "answered_ratio_max",
    "bytes_per_node_s.mean",
    "bytes_per_node_s.p50",
    "dead_seats",
    "evicted_share_h",
    "hostile_seats_max",
    "neighbours_known",
    "records_max",
    "replicas_mean",
    "seats_mean",
    "seed_share",
    "victim_datagrams",
}
"""What it may name of the whole run."""


class Measures:
    """Of a whole run, and of its named steps."""

    def __init__(self) -> None:
        self.all = StepMeasures()
        self.steps: dict[str, StepMeasures] = {}
        self.interval: dict[Verdict, int] = defaultdict(int)
        """Lookups since the last sample."""

    def of(self, step: str) -> list[StepMeasures]:
        """Where something that happens in `step` (maybe unnamed) counts."""
        return [self.all, self.steps.setdefault(step, StepMeasures())] if step else [self.all]

    def on_lookup(self, step: str, found: Found, verdict: Verdict) -> None:
        """A lookup ended."""
        if not found.local:
            self.interval[verdict] += 1
        for measures in self.of(step):
            measures.on_lookup(found, verdict)
