"""The Unix socket of a running peer or seed: the only local control channel.

One JSON object per line, in and out; the folder's mode (0700) is the access control. Requests on one connection are
answered in order; several connections are served side by side.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dht_atonce import errors
from dht_atonce.errors import AtOnceError, ControlError

__all__ = ["ControlClient", "Lookup", "Request", "Send", "Status", "serve"]

SOCKET = "control.sock"
_MAX_LINE = 256 * 1024
_MAX_CONNECTIONS = 64

PeerText = Annotated[str, Meta(max_length=64)]


class Status(msgspec.Struct, tag="status", tag_field="op"):
    """How are you?"""


class Lookup(msgspec.Struct, tag="lookup", tag_field="op"):
    """Look up a peer."""

    peer: PeerText
    fresh: bool = False


class Send(msgspec.Struct, tag="send", tag_field="op"):
    """Send a message."""

    peer: PeerText
    data: bytes
    timeout_s: Annotated[float, Meta(gt=0, le=3600)] | None = None


Request = Status | Lookup | Send
Handler = Callable[[Request], Awaitable[dict[str, Any]]]

_DECODER = msgspec.json.Decoder(Request)


def _reachable(folder: Path) -> tuple[str, int | None]:
    """A path for the socket that fits into the 108 bytes that the kernel allows, and a descriptor to close
    afterwards."""
    path = str(folder / SOCKET)
    if len(os.fsencode(path)) < 100:
        return path, None
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{fd}/{SOCKET}", fd


@contextlib.asynccontextmanager
async def serve(folder: Path, handler: Handler) -> AsyncIterator[None]:
    """Answer requests through the socket in `folder`, whose profile we own. An `AtOnceError` of `handler` is an
    answer."""
    connections: dict[asyncio.Task[None], None] = {}

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections[task] = None
        try:
            if len(connections) <= _MAX_CONNECTIONS:
                await _converse(reader, writer, handler)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            connections.pop(task, None)
            writer.close()

    (folder / SOCKET).unlink(missing_ok=True)  # of a process that was killed: we hold the profile's lock
    path, fd = _reachable(folder)
    try:
        server = await asyncio.start_unix_server(on_connection, path, limit=_MAX_LINE)
    except OSError as error:
        raise ControlError(f"the control socket in {folder} cannot be made: {error.strerror or error}") from None
    finally:
        if fd is not None:
            os.close(fd)
    (folder / SOCKET).chmod(0o600)
    try:
        yield
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        if connections:
            await asyncio.wait(list(connections))
        (folder / SOCKET).unlink(missing_ok=True)


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
    while True:
        try:
            line = await reader.readline()
        except ValueError:
            return  # a line longer than any request
        if not line:
            return
        try:
            reply = {"ok": True, **await handler(_DECODER.decode(line))}
        except msgspec.DecodeError as error:
            reply = {"ok": False, "kind": "ControlError", "error": f"not a request: {error}"}
        except AtOnceError as error:
            reply = {"ok": False, "kind": type(error).__name__, "error": str(error)}
        writer.write(msgspec.json.encode(reply) + b"\n")
        await writer.drain()


class ControlClient:
    """A connection to the running process of a profile."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, folder: Path) -> "ControlClient | None":
        """The running process of the profile in `folder`; None if there is none."""
        if not (folder / SOCKET).exists():
            return None
        path, fd = _reachable(folder)
        try:
            return cls(*await asyncio.open_unix_connection(path, limit=_MAX_LINE))
        except (ConnectionError, FileNotFoundError):
            return None
        except OSError as error:
            raise ControlError(f"the control socket in {folder} cannot be used: {error.strerror}") from None
        finally:
            if fd is not None:
                os.close(fd)

    async def ask(self, request: Request) -> dict[str, Any]:
        """The answer. Raises what the running process raised, or `ControlError` if it is gone."""
        try:
            self._writer.write(msgspec.json.encode(request) + b"\n")
            await self._writer.drain()
            line = await self._reader.readline()
        except ConnectionError:
            line = b""
        if not line:
            raise ControlError("the running process ended before it answered")
        reply: dict[str, Any] = msgspec.json.decode(line)
        if not reply.pop("ok"):
            kind = getattr(errors, reply["kind"], ControlError)
            raise kind(reply["error"])
        return reply

    def close(self) -> None:
        self._writer.close()
