"""The Unix socket of a running peer or seed: the only local control channel.

One JSON object per line, in and out; the folder's mode (0700) is the access control. Requests on one connection are
answered in order; several connections are served side by side.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dht_atonce import errors
from dht_atonce.errors import AtOnceError, ControlError

__all__ = [
    "AddContact",
    "CancelTransfer",
    "ControlClient",
    "Hear",
    "LookAtTransfer",
    "Lookup",
    "Notify",
    "Pull",
    "Push",
    "RemoveContact",
    "Request",
    "Send",
    "Status",
    "serve",
]

SOCKET = "control.sock"
_MAX_LINE = 256 * 1024
_MAX_CONNECTIONS = 64
_MAX_PATH = 100  # bytes; the kernel allows 108, macOS 104
_REFUSAL_S = 1.0
_SEND_S = 10.0  # what the library waits for if a Send says nothing
_SPARE_S = 5.0  # beyond what an answer may take: the process may be busy, or stopped

PeerText = Annotated[str, Meta(max_length=64)]
PathText = Annotated[str, Meta(max_length=4096)]
TopicText = Annotated[str, Meta(min_length=1, max_length=64)]


class _Op(msgspec.Struct, tag_field="op"):
    """What may be asked of a running peer."""

    @property
    def patience_s(self) -> float:
        """How long the answer may take; here: it is there at once."""
        return _SPARE_S


class Status(_Op, tag="status"):
    """How are you?"""


class Lookup(_Op, tag="lookup"):
    """Look up a peer."""

    peer: PeerText
    fresh: bool = False

    @property
    def patience_s(self) -> float:
        """How long the answer may take: one lookup, and others before it."""
        return 30.0 + _SPARE_S


class Send(_Op, tag="send"):
    """Send a message."""

    peer: PeerText
    data: bytes
    timeout_s: Annotated[float, Meta(gt=0, le=3600)] | None = None

    @property
    def patience_s(self) -> float:
        """How long the answer may take."""
        return (self.timeout_s or _SEND_S) + _SPARE_S


class AddContact(_Op, tag="add_contact"):
    """Know a peer from now on."""

    peer: PeerText
    name: Annotated[str, Meta(max_length=64)] = ""


class Push(_Op, tag="push"):
    """Begin to push a file."""

    peer: PeerText
    path: PathText


class RemoveContact(_Op, tag="remove_contact"):
    """Know a peer no longer; ends its link if only contacts are accepted."""

    peer: PeerText


class Pull(_Op, tag="pull"):
    """Begin to pull a file into a folder."""

    peer: PeerText
    name: PathText
    folder: PathText


class LookAtTransfer(_Op, tag="transfer"):
    """How does it stand?"""

    number: int


class CancelTransfer(_Op, tag="cancel"):
    """Break it off."""

    number: int


class Notify(_Op, tag="notify"):
    """Say something to everybody in a room."""

    topic: TopicText
    data: bytes

    @property
    def patience_s(self) -> float:
        """How long the answer may take: coming in, and the acknowledgements."""
        return 60.0 + _SPARE_S


class Hear(_Op, tag="hear"):
    """What has happened in a room since this listener asked last."""

    topic: TopicText
    listener: Annotated[str, Meta(min_length=8, max_length=64)]
    """A word of the listener's own, the same each time."""
    last: Annotated[int, Meta(ge=0, le=256)] = 0
    waits: bool = True
    """A while, for something to happen."""

    @property
    def patience_s(self) -> float:
        """How long the answer may take: coming in, and then waiting."""
        return 60.0 + _SPARE_S


Request = (
    Status | Lookup | Send | AddContact | RemoveContact | Push | Pull | LookAtTransfer | CancelTransfer | Notify | Hear
)
Handler = Callable[[Request], Awaitable[dict[str, Any]]]

_DECODER = msgspec.json.Decoder(Request)


@contextlib.contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """A path for the socket that fits into the bytes that the kernel allows, valid within the block."""
    path = str(folder / SOCKET)
    if len(os.fsencode(path)) < _MAX_PATH:
        yield path
        return
    if not os.path.isdir("/proc/self/fd"):
        raise ControlError(f"the path {folder} is too long for a control socket; choose a shorter one for the profile")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


@contextlib.asynccontextmanager
async def serve(folder: Path, handler: Handler) -> AsyncIterator[None]:
    """Answer requests through the socket in `folder`, whose profile we own. An `AtOnceError` of `handler` is an
    answer."""
    connections: dict[asyncio.Task[None], None] = {}
    has_ended = False

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine: one that has not begun when we end would not be known yet.
        if has_ended:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(converse(reader, writer), name="control connection")
        connections[task] = None
        task.add_done_callback(lambda _: connections.pop(task, None))
        task.add_done_callback(lambda _: writer.close())  # also of a task that ended before it began

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(connections) <= _MAX_CONNECTIONS:
                await _converse(reader, writer, handler)
            else:
                await _refuse(reader, writer, "this process serves as many connections as it can; try again later")
        except ConnectionError:
            pass
        except Exception as error:
            _reply_error(writer, f"internal: {type(error).__name__}: {error}; please report it")
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a control request failed", "exception": error}
            )

    socket = folder / SOCKET
    with contextlib.ExitStack() as stack:  # asyncio uses the path once more when it closes the server
        try:
            socket.unlink(missing_ok=True)  # of a process that was killed: we hold the profile's lock
            path = stack.enter_context(_reachable(folder))
            server = await asyncio.start_unix_server(on_connection, path, limit=_MAX_LINE)
            socket.chmod(0o600)
        except OSError as error:
            raise ControlError(f"the control socket in {folder} cannot be made: {error.strerror or error}") from None
        try:
            yield
        finally:
            has_ended = True
            server.close()
            for task in list(connections):
                task.cancel()
            if connections:
                await asyncio.wait(list(connections))
            with contextlib.suppress(OSError):
                socket.unlink(missing_ok=True)


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    while True:
        try:
            line = await reader.readline()
        except ValueError:
            await _refuse(reader, writer, f"not a request: a line has at most {_MAX_LINE} bytes")
            return
        if not line:
            return
        try:
            reply = {"ok": True, **await handler(_DECODER.decode(line))}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _reply_error(writer, f"not a request: {error}")
        except AtOnceError as error:
            _reply_error(writer, str(error), type(error).__name__)
        else:
            writer.write(msgspec.json.encode(reply) + b"\n")
        await writer.drain()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> None:
    """Say no, and hear the client out for a moment: hung up on in the middle, it would not hear us."""
    _reply_error(writer, text)
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REFUSAL_S):
            while await reader.read(_MAX_LINE):
                pass


def _reply_error(writer: asyncio.StreamWriter, text: str, kind: str = ControlError.__name__) -> None:
    writer.write(msgspec.json.encode({"ok": False, "kind": kind, "error": text}) + b"\n")


class ControlClient:
    """A connection to the running process of a profile."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, folder: Path) -> "ControlClient | None":
        """The running process of the profile in `folder`; None if there is none. Raises `ControlError`."""
        try:
            if not (folder / SOCKET).exists():
                return None
            with _reachable(folder) as path:
                return cls(*await asyncio.open_unix_connection(path, limit=_MAX_LINE))
        except (ConnectionError, FileNotFoundError):
            return None
        except OSError as error:
            raise ControlError(f"the control socket in {folder} cannot be used: {error.strerror or error}") from None

    async def ask(self, request: Request) -> dict[str, Any]:
        """The answer. Raises what the running process raised, or `ControlError` if it is gone or does not answer."""
        try:
            async with asyncio.timeout(request.patience_s):
                self._writer.write(msgspec.json.encode(request) + b"\n")
                await self._writer.drain()
                line = await self._reader.readline()
        except TimeoutError:
            self.close()  # the answer may yet come, and would be taken for that to the next question
            raise ControlError(
                f"the running process has not answered within {request.patience_s:g} s; if it is stuck, end it"
            ) from None
        except ConnectionError:
            line = b""
        if not line.endswith(b"\n"):
            raise ControlError("the running process ended before it answered; start it again")
        try:
            reply: dict[str, Any] = msgspec.json.decode(line)
            succeeded = reply.pop("ok")
            kind, text = reply.get("kind", ""), reply.get("error", "")
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
            raise ControlError("the running process is of another version; start it again") from None
        if not succeeded:
            raise _error(kind, text)
        return reply

    def close(self) -> None:
        self._writer.close()


def _error(kind: str, text: str) -> AtOnceError:
    """The error that the running process raised."""
    error = getattr(errors, kind, None) if kind in errors.__all__ else None
    return (error or ControlError)(text)
