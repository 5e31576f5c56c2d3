"""The link seam: ordered, authenticated connections between identities.

Below it: CURVE, sockets, routing ids, tokens, heartbeats (`messaging/curve.py`), or the virtual world. Above it: the
seed handshake and messages. A link proves the X25519 form of the other side's identity key, nothing more; who that
is, the layer above learns from what is signed.
"""

from collections.abc import Callable
from typing import Final, Protocol

from dht_atonce.endpoints import Address

__all__ = ["LARGE", "Link", "LinkNet", "LinkPort", "OnClosed", "OnFrame", "OnLink"]

LARGE: Final = 65_536
"""Bytes from which on a frame is not copied where a view of it will do."""

OnFrame = Callable[[bytes], None]
OnClosed = Callable[[str], None]
"""Called once with the reason, when the link ends for any reason but our own `close`."""


class Link(Protocol):
    """One connection, after both sides proved their keys."""

    @property
    def curve_key(self) -> bytes:
        """The other side's verified X25519 public key, 32 B."""

    @property
    def remote(self) -> Address | None:
        """The other side's address as we see it, if known. The port of a peer that dialled us may be 0: not known."""

    @property
    def outbound(self) -> bool:
        """Whether we dialled."""

    @property
    def is_closed(self) -> bool: ...

    def start(self, on_frame: OnFrame, on_closed: OnClosed) -> None:
        """Begin to hand over frames, in order; those that came earlier follow first. Called once, in the turn in which
        the link was handed over."""

    def send(self, *parts: bytes) -> bool:
        """Queue a body of 1 to 253,952 B, given in parts so that a large one is copied once. False: the link is closed
        or its queue full, and nothing was sent.

        Raises `MessageTooLarge`.
        """

    def close(self) -> None:
        """Tell the other side, best effort, and end. `on_closed` is not called."""


OnLink = Callable[[Link], None]


class LinkPort(Protocol):
    """A listening socket."""

    @property
    def address(self) -> Address: ...

    def close(self) -> None:
        """Close the socket and every link that came in through it."""


class LinkNet(Protocol):
    """Where links come from: one per identity and process."""

    def listen(self, bind: Address, on_link: OnLink) -> LinkPort:
        """Accept links (port 0: any). Raises `PortInUse`."""

    async def dial(self, address: Address, curve_key: bytes, timeout_s: float) -> Link:
        """Connect to whoever holds `curve_key` at `address`. Raises `LinkError`; `LinkRefused` if somebody is there
        but does not accept us."""

    async def aclose(self) -> None:
        """Close everything, giving what was queued a moment (at most half a second) to leave."""
