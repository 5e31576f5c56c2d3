"""What one trial does. Standard library only: some rivals run under another Python."""

from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["ROWS", "Plan", "Row"]


class Row(NamedTuple):
    """What is measured."""

    name: str
    size: int = 100
    """Bytes of a message."""
    in_flight: int = 1
    """Messages that are acknowledged and wait for it at the same time."""
    burst: int = 1
    """Rounds that are sent to all links in one turn of the loop."""


ROWS: Final = {
    row.name: row
    for row in (
        Row("one-way-100"),
        Row("one-way-1k", size=1024),
        Row("acked-64", in_flight=64),
        Row("acked-1000", in_flight=1000),
        Row("fan-64", burst=64),
        Row("fan-1"),
        Row("ping"),
        Row("ping-handler"),
        Row("memory"),
    )
}


@dataclass(frozen=True)
class Plan:
    """One trial."""

    rival: str
    row: str
    round: int
    measure_s: float = 0.8
    """At least so long, after as much of a warm-up as `warm_share` says."""
    warm_share: float = 0.25
    links: int = 50
    """Of a fan-out."""
    memory_links: int = 1000
