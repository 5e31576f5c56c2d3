"""How much of durable messages is kept, for how long, and when they are sent again."""

from dataclasses import dataclass

__all__ = ["DurableConfig"]


@dataclass(frozen=True, slots=True)
class DurableConfig:
    """Messages that are kept on both sides' disks."""

    outbox_messages: int = 100_000
    """Of ours that are not acknowledged; beyond either bound `QueueFull`."""
    outbox_bytes: int = 256 << 20
    inbox_messages: int = 100_000
    """Acknowledged, and the app is not done with them. One sender gets half of what is left at most, so half of it all.
    What finds no room is refused and stays in its sender's outbox."""
    inbox_bytes: int = 256 << 20
    remembered: int = 1_000_000
    """Ids in all, with those of what is done, some 100 B on the disk each; shared as the inbox is."""
    expires_s: float = 7 * 86400.0
    """Unless told otherwise."""
    max_expires_s: float = 30 * 86400.0
    """Part of the protocol: a receiver refuses what would have to be remembered for longer."""
    clock_slack_s: float = 86400.0
    """By so much the sender's clock may be ahead of ours."""
    window_messages: int = 4096
    """On their way to one peer, and not acknowledged."""
    window_bytes: int = 4 << 20
    pending_messages: int = 8192
    """Of one sender that wait to be written; beyond it the link holds him up."""
    ready_messages: int = 4096
    """In memory for the app, read ahead of it; the others lie on the disk until then."""
    ready_bytes: int = 4 << 20
    retry_s: float = 2.0
    """Until a peer that could not be reached, or refused, is tried again; doubled each time."""
    retry_max_s: float = 120.0
    stall_s: float = 20.0
    """When nothing of what is under way was acknowledged for so long, it is sent again."""
    max_watches: int = 256
    """Peers whose return is watched for in the DHT; further ones are only tried now and then."""
    max_senders: int = 10_000
    """Senders of whom it is remembered where they are; beyond it the one not heard of for longest begins anew."""
    close_s: float = 0.6
    """For what is being written when the peer is closed."""
