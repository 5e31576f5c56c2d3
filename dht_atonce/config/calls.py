"""How much requests and replies may hold, and how long they wait."""

from dataclasses import dataclass

__all__ = ["CallConfig"]


@dataclass(frozen=True, slots=True)
class CallConfig:
    """Requests and replies."""

    max_outstanding: int = 10_000
    """Requests of ours that wait for their replies, before `QueueFull`."""
    max_timeout_s: float = 3600.0
    max_running: int = 1024
    """Requests of others that hold room here, each with at most 60,000 B: from their coming until their reply is
    acknowledged."""
    max_running_per_sender: int = 256
    """Of one sender; and never more than are left for others."""
    max_untaken: int = 10_000
    """Replies to one sender that it has not acknowledged, as many as an honest one may wait for; beyond them its
    requests are not even refused. All but `max_running_per_sender` of them are refusals, of some hundred bytes."""
    lost_link_s: float = 5.0
    """So long a request goes on when the link to who asked is gone, which may come back."""
    end_s: float = 0.5
    """How long cancelled handlers may take when we are closed."""
