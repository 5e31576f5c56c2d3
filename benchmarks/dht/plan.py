"""What one trial does: the sizes that all rivals share. Standard library only: some rivals run under another Python."""

from dataclasses import dataclass

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """One trial."""

    rival: str
    nodes: int
    """0: the benchmark of single requests."""
    seed: int
    puts: int = 200
    gets: int = 400
    """At a pace, and as many again with `outstanding` at once."""
    gets_after: int = 200
    """After the deaths."""
    watches: int = 20
    requests: int = 20_000
    value_bytes: int = 300
    gap_s: float = 0.005
    """A get begins so long after the one before it began, whether or not that one has ended: who is slow is asked as
    often as who is quick."""
    outstanding: int = 32
    dead_share: float = 0.3
    patience_s: float = 25.0
    """A phase whose gets have not ended by then is over; those count as not found."""
