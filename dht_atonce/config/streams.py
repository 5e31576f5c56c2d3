"""How much streams may hold, and how long they wait."""

from dataclasses import dataclass

__all__ = ["StreamConfig"]


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """Streams of one peer with all others."""

    max_streams: int = 1024
    """Open at once with all peers together, and those that wait to be taken."""
    max_streams_per_peer: int = 64
    max_untaken_per_peer: int = 16
    """Streams of one other peer that the app has not taken yet."""
    untaken_s: float = 30.0
    """A stream that the app has not taken for so long is refused."""
    window_bytes: int = 2 << 20
    """Of one stream, received and not read: as much credit a writer has at most."""
    buffered_bytes: int = 64 << 20
    """Credit given to all writers together. As it runs out each gets less, at least the protocol's first credit."""
    write_ahead_bytes: int = 256 << 10
    """Written and not handed to the delivery yet: above it `write` waits."""
    outstanding_min_bytes: int = 128 << 10
    """Of all streams to one peer, handed to the delivery and not acknowledged."""
    outstanding_max_bytes: int = 2 << 20
    """Half the delivery's window, so that a message always finds room in it."""
    queueing_s: float = 0.1
    """So long what a peer is sent may wait in queues on its way: a message posted during a transfer waits with it."""
    max_replies: int = 1024
    """Credit and refusals that a peer has not acknowledged; beyond it there are no more."""
    open_timeout_s: float = 10.0
    unreachable_s: float = 30.0
    """Without a link to the other side for so long, a stream breaks."""
    redial_s: float = 0.5
    """Until the second try to have a link again; doubled with each."""
    redial_max_s: float = 5.0
    full_retry_s: float = 0.05
    """Until a piece is tried again for which the pair's queue had no room."""
