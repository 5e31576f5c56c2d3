"""Every error that @Once raises.

Misuse by the caller and states of the world that the caller must know of raise one of these. What a stranger
sends never raises: it is dropped and counted.

Each message is one line that says what is wrong and, where something can be done, what to do.
"""

__all__ = [
    "AtOnceError",
    "ClockWrong",
    "ConfigError",
    "ControlError",
    "Deadlock",
    "DeliveryUnknown",
    "EndpointError",
    "EntryFailed",
    "Escape",
    "IdentityInUse",
    "LinkError",
    "LinkRefused",
    "MessageTooLarge",
    "NetworkMismatch",
    "NoFamily",
    "NotAccepted",
    "NotSupported",
    "PeerClosed",
    "PeerIdError",
    "PeerOffline",
    "PeerUnknown",
    "PortInUse",
    "ProfileError",
    "ProfileInUse",
    "QueueFull",
    "RecordError",
    "SeedUrlError",
    "StreamBroken",
    "StreamReset",
    "TransferFailed",
    "WireError",
]


class AtOnceError(Exception):
    """Base of all errors of @Once."""


# --- misuse by the caller, or a machine that is not as it should be ---


class PeerIdError(AtOnceError, ValueError):
    """A text or key that is no PeerId: a typo, a wrong length, an invalid point."""


class EndpointError(AtOnceError, ValueError):
    """An address that is no usable endpoint."""


class SeedUrlError(AtOnceError, ValueError):
    """A seed URL that cannot be read; the form is atonce://PEERID@HOST:PORT."""


class ConfigError(AtOnceError, ValueError):
    """A file or setting that was given cannot be used; the message says which, where in it, and what was expected."""


class MessageTooLarge(AtOnceError, ValueError):
    """A message, value or record is larger than the wire allows."""


class ProfileError(AtOnceError):
    """A profile folder is damaged, unreadable, or readable by others."""


class ProfileInUse(ProfileError):
    """Another process owns this profile."""


class PortInUse(AtOnceError, OSError):
    """The port asked for belongs to another process, or may not be bound."""


class NoFamily(PortInUse):
    """This machine has no addresses of the family (IPv4 or IPv6) asked for."""


class PeerClosed(AtOnceError):
    """The Peer was closed while, or before, this was asked of it."""


class QueueFull(AtOnceError):
    """More is waiting than the bound allows; await what was sent before."""


class ControlError(AtOnceError):
    """The running process of a profile could not be reached or refused a command."""


# --- the network ---


class EntryFailed(AtOnceError):
    """No way into the network was found. The message says what was tried and what each answered."""


class NetworkMismatch(AtOnceError):
    """A seed serves another network than the one asked for."""


class PeerUnknown(AtOnceError, LookupError):
    """The network holds no presence record of this peer, or its goodbye."""


class PeerOffline(AtOnceError, ConnectionError):
    """The peer has a presence record but cannot be reached; nothing was delivered."""


class DeliveryUnknown(AtOnceError, TimeoutError):
    """The message left, but no acknowledgement came: it may or may not have been delivered."""


class NotAccepted(AtOnceError, ConnectionError):
    """The other side refused us."""


class NotSupported(AtOnceError):
    """The other side's presence record does not say that it can do what was asked."""


class StreamReset(AtOnceError, ConnectionError):
    """The other side gave a stream up. Of what was written last, nobody knows how much was read."""


class StreamBroken(AtOnceError, ConnectionError):
    """A stream ended without its end: the other process is gone, or was out of reach for too long."""


class TransferFailed(AtOnceError):
    """A file was not sent or not taken; the message says why."""


class IdentityInUse(AtOnceError):
    """Another process publishes under our identity."""


class ClockWrong(AtOnceError):
    """This machine's clock is wrong by more than a day, and nothing could correct it."""


# --- the virtual world ---


class Deadlock(AtOnceError, RuntimeError):
    """In virtual time nothing is scheduled any more, and what was waited for cannot come."""


class Escape(AtOnceError, RuntimeError):
    """Code in the virtual world reached for the real one: a thread, a name server, a socket, a real sleep."""


# --- links ---


class LinkError(AtOnceError, ConnectionError):
    """A link could not be opened, or is closed."""


class LinkRefused(LinkError):
    """The other end was reached and did not accept the link: usually it holds another key than the one we pinned."""


# --- what a stranger's bytes may be; raised by parsers, caught and counted by shells ---


class WireError(AtOnceError, ValueError):
    """Bytes that are not what docs/wire.md says."""


class RecordError(WireError):
    """Bytes that are no acceptable record. `reason` is the name of the counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
