"""When a watched peer counts as gone, and how many are watched."""

from dataclasses import dataclass

__all__ = ["PresenceConfig"]


@dataclass(frozen=True, slots=True)
class PresenceConfig:
    """Watching other peers."""

    suspect_s: float = 1.0
    """A link that is lost for so long makes its peer suspect."""
    offline_s: float = 2.5
    """… and for so long offline. With the heartbeats' 12 s at most, a crash is seen within 15 s."""
    max_links: int = 64
    """Peers to whom a link is kept because they are watched; others are judged by their records."""
    max_watched: int = 10_000
    retry_s: float = 30.0
    """Until a peer that could not be reached is dialled again, though nothing new is heard of it; doubled each time."""
    retry_max_s: float = 300.0
