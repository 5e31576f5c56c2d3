"""Links, and delivery over them."""

from dataclasses import dataclass, field

from dht_atonce.config.calls import CallConfig
from dht_atonce.config.durable import DurableConfig

__all__ = ["LinkConfig", "MessagingConfig"]


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """CURVE links."""

    heartbeat_s: float = 3.0
    timeout_s: float = 9.0
    handshake_s: float = 10.0
    """How long a stranger may take for the CURVE handshake. What bounds strangers is the cap on connections without a
    link; a short limit only hits those who dial a machine that stands still for a moment."""
    max_body_bytes: int = 253_952
    """docs/wire.md section 4."""
    max_message_bytes: int = 262_144
    """What libzmq itself refuses, before any login: without it one stranger can hold any amount of memory."""
    max_links: int = 1024
    max_links_per_ip: int = 16
    """Off for loopback, where all peers of a machine share one address."""
    high_water_mark: int = 256
    """Frames queued in libzmq per connection and way: the window bounds what honest peers have there, but not what is
    queued for one that acknowledges what it never read, or comes from one that floods while we stand still."""
    drain: int = 128
    """Frames handled per wake-up of the loop."""


@dataclass(frozen=True, slots=True)
class MessagingConfig:
    """Delivery from peer to peer."""

    max_message_bytes: int = 60_000
    max_service_bytes: int = 60_400
    """A message of another kind than the app's: as many bytes of the app, and what the service writes round them."""
    max_piece_bytes: int = 250_000
    """Of a message that is a piece of a stream: a frame of its own."""
    window_messages: int = 16_384
    """Messages towards one peer that wait for their acknowledgement; further ones wait to be sent. As many as one
    sender may have in an inbox: with half of it a busy machine's pauses leave the sender idle."""
    window_bytes: int = 4 << 20
    first_window: int = 1024
    """So many may be sent to somebody new before it says how much room it has. Part of the protocol."""
    window_step: int = 1024
    """The sender hears of more room when it is so much more, or half of all."""
    ack_delay_s: float = 0.005
    """An acknowledgement for which nobody waits may be so late."""
    ack_frames: int = 8
    """So many frames are acknowledged together at most."""
    max_held: int = 64
    """Frames that are held behind a gap."""
    max_waiting: int = 65_536
    """Messages to one peer, in the window or waiting for it, before `QueueFull`."""
    max_waiting_bytes: int = 64 << 20
    frame_messages: int = 256
    frame_bytes: int = 60_000
    inbox_messages: int = 32_768
    """Messages that wait for the app. One sender gets half of it at most. Where there is no room nothing is accepted or
    acknowledged, and senders wait; but whoever has nothing in it has room for one frame, until twice as many wait."""
    inbox_bytes: int = 64 << 20
    retransmit_s: float = 0.25
    retransmit_max_s: float = 2.0
    send_timeout_s: float = 10.0
    hello_timeout_s: float = 3.0
    max_pairs: int = 10_000
    """Peers whose sequence numbers are remembered; the longest idle without anything unacknowledged go first."""
    max_memories: int = 100_000
    """Peers of which only the sequence numbers are remembered, some 200 B each. Who is forgotten even here and had not
    heard our last acknowledgement can have a message enqueued twice."""
    max_dials: int = 64
    redials: int = 3
    """Of a peer whose links end as soon as they are open."""
    redial_s: float = 0.1
    """Before the second; doubled with each."""
    crossed_s: float = 1.0
    """Two links of a pair, one dialled by each side, that open within so long were dialled in the same moment."""
    max_links: int = 1000
    """Beyond it the least used one without anything queued is ended."""
    unsent_retry_s: float = 0.05
    """Until a frame is tried again for which a link's queue had no room."""
    refused_burst: int = 4
    """So many times the HELLO of a peer that is not accepted is read; then once every `refused_s`."""
    refused_s: float = 10.0
    max_refused: int = 10_000
    """Keys whose refusals are remembered."""
    calls: CallConfig = field(default_factory=CallConfig)
    durable: DurableConfig = field(default_factory=DurableConfig)
