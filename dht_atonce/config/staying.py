"""How a peer finds out that it fell out of its network, and how it comes back."""

from dataclasses import dataclass

__all__ = ["StayConfig"]


@dataclass(frozen=True, slots=True)
class StayConfig:
    """Staying in a network."""

    look_s: float = 1.0
    """Between two looks whether we slept or are alone; one costs some microseconds."""
    addresses_every: int = 3
    """Looks between two at our own addresses, which cost a system call for each family."""
    asleep_s: float = 3.0
    """When a look is later than that, by either clock, we were asleep."""
    silent_requests: int = 8
    """So many failures in a row without any answer cast doubt on our being in the network."""
    reach_contacts: int = 16
    """Contacts that are asked at once whether anybody is there: if half of all are dead, all of these are once in
    65,536 times."""
    reach_s: float = 3.0
    """How long they may take."""
    reach_max_s: float = 30.0
    """The longest pause between two such rounds of who is out: the cheap way back."""
    backoff_first_s: float = 1.0
    climb_max_s: float = 300.0
    """The longest pause between two rounds of the ladder, seeds included."""
    visit_below: int = 16
    """With fewer nodes known, the seeds may know none of them any more, for all have moved or the seeds lost their
    lists: whoever moves, or comes in by saved contacts, visits the seeds."""
    visit_s: float = 2.0
    """So long after it is in."""
    republish_s: float = 60.0
    """At least so long between two publishes because others see us at another address."""
