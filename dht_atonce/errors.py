"""Every error that @Once raises.

Misuse by the caller and states of the world that the caller must know of raise one of these. What a stranger
sends never raises: it is dropped and counted.

Each message is one line that says what is wrong and, where something can be done, what to do.
"""

__all__ = [
    "AtOnceError",
    "ClockWrong",
    "ConfigError",
    "ContactsSilent",
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
    "NoSuchService",
    "NotAccepted",
    "NotSupported",
    "PeerBusy",
    "PeerClosed",
    "PeerIdError",
    "PeerOffline",
    "PeerUnknown",
    "PortInUse",
    "ProfileError",
    "ProfileInUse",
    "QueueFull",
    "RecordError",
    "ReplyError",
    "RequestFailed",
    "RequestLost",
    "RequestTimeout",
    "SeedUrlError",
    "StoreError",
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


class StoreError(AtOnceError):
    """What must be kept on this machine's disk could not be: the disk is full or failing, or the file is damaged. The
    message says which file, and what became of it; what was acknowledged before is not touched."""


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


class ContactsSilent(EntryFailed):
    """None of the contacts that a seed named answers."""


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
    """The other side, or this one as it was opened, cannot do what was asked; the message says what is missing."""


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


# --- requests ---


class _Coded(AtOnceError):
    """An error with a word for programs and a text for people."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.code}: {self.text}" if self.text else self.code


class ReplyError(_Coded):
    """Raised by a handler of requests to have it raised at the other side, as `RequestFailed`.

    code: a word for programs, at most 64 characters; text: for people, at most 512. What is longer is cut.
    """


class RequestFailed(_Coded):
    """The other side answered that it failed, in the words of its `ReplyError`; for any other exception there, `code`
    is `internal`, and what it was is not told."""


class NoSuchService(RequestFailed):
    """The other side serves nothing under this name; nothing was carried out."""


class PeerBusy(RequestFailed):
    """The other side carries out as many requests as it can, of ours or of all; nothing was carried out."""


class RequestTimeout(AtOnceError, TimeoutError):
    """No reply came in time. `may_have_run`: False if the request never left, and never will."""

    def __init__(self, text: str, may_have_run: bool = True) -> None:
        super().__init__(text)
        self.may_have_run = may_have_run


class RequestLost(AtOnceError, ConnectionError):
    """The other side was lost, or started again, before its reply came: the request may have been carried out."""


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
