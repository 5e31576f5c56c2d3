"""asyncio's streams over TLS: messages with their length in front of them."""

import asyncio
import ssl
import subprocess
import tempfile
from pathlib import Path

from benchmarks.messages.rival import Channel, Info, Skipped

__all__ = ["make"]

_MANY_BYTES = 1 << 20  # that wait to be written before the sender is held back


class _Stream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(_MANY_BYTES)

    async def send(self, data: bytes) -> None:
        self._writer.write(len(data).to_bytes(4, "big") + data)
        if self._writer.transport.get_write_buffer_size() > _MANY_BYTES:
            await self._writer.drain()

    async def recv(self) -> bytes:
        head = await self._reader.readexactly(4)
        return await self._reader.readexactly(int.from_bytes(head, "big"))


class _Tls:
    def __init__(self) -> None:
        self._accepted: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self._server: asyncio.Server | None = None

    async def listen(self) -> Info:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            context.load_cert_chain(*_certificate(Path(folder)))
        self._server = await asyncio.start_server(self._on_accepted, "127.0.0.1", 0, ssl=context)
        return {"port": self._server.sockets[0].getsockname()[1]}

    async def _on_accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted.set_result(_Stream(reader, writer))

    async def accept(self) -> Channel:
        return await self._accepted

    async def dial(self, info: Info) -> Channel:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return _Stream(*await asyncio.open_connection("127.0.0.1", info["port"], ssl=context))


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of its own making, and its key."""
    certificate, key = folder / "certificate", folder / "key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=bench", "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        raise Skipped("openssl is not installed") from None
    return certificate, key


def make() -> _Tls:
    return _Tls()
