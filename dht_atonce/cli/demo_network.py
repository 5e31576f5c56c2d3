"""The processes of a demo: a seed and peers, each the command that a user would type."""

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from dht_atonce.cli.control import ControlClient, Request
from dht_atonce.endpoints import Address, parse_address
from dht_atonce.errors import ControlError

__all__ = ["DemoNetwork", "DemoPeer", "SeedGrave"]

_LOOPBACK = "127.0.0.1"
_START_S = 30.0
_REMOVALS, _REMOVAL_PAUSE_S = 20, 0.02
_STOP_S = 5.0


class DemoProcess:
    """An `atonce` process that prints events, and its profile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=100_000)
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._errors = b""

    @property
    def pid(self) -> int | None:
        """While it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self, *args: str) -> None:
        """Start `atonce ARGS --json --profile FOLDER`."""
        command = [sys.executable, "-m", "dht_atonce.cli.main", *args, "--json", "--profile", str(self.folder)]
        self._process = process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 20
        )
        self._reading = asyncio.create_task(self._read(process), name=f"read {self.folder.name}")

    async def event(self, name: str, timeout_s: float = _START_S) -> dict[str, Any]:
        """The next event of this name; those before it are passed over. Raises `ControlError` if it does not come."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    event = await self.events.get()
                    if event["event"] == name:
                        return event
                    if event["event"] == "ended":
                        message = self._errors.decode(errors="replace").strip() or "no word why"
                        raise ControlError(f"{self.folder.name} ended: {message}")
        except TimeoutError:
            raise ControlError(f"{self.folder.name} did not report {name!r} within {timeout_s:g} s") from None

    async def connect(self) -> ControlClient:
        """Its control socket."""
        client = await ControlClient.connect(self.folder)
        if client is None:
            raise ControlError(f"{self.folder.name} has no control socket")
        return client

    async def kill(self) -> None:
        """SIGKILL: it has no chance to say anything."""
        self.kill_at_once()
        await self._end()

    def kill_at_once(self) -> None:
        """SIGKILL, without waiting."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """SIGTERM; SIGKILL if it does not end."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_S):
                    await self._end()
            except TimeoutError:
                self.kill_at_once()
        await self._end()

    async def _end(self) -> None:
        """Wait until it has ended, and all that it said is in `events`."""
        if self._process is not None:
            await self._process.wait()
        if self._reading is not None:
            await self._reading

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        async for line in process.stdout:
            with contextlib.suppress(asyncio.QueueFull, msgspec.DecodeError):
                self.events.put_nowait(msgspec.json.decode(line))
        self._errors = await process.stderr.read()
        with contextlib.suppress(asyncio.QueueFull):
            self.events.put_nowait({"event": "ended"})


class DemoPeer(DemoProcess):
    """`atonce join`, and a connection to its control socket."""

    id: str
    control: ControlClient

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._asking = asyncio.Lock()

    async def ask(self, request: Request) -> dict[str, Any]:
        """What it answers; one question at a time. Raises what it raised."""
        async with self._asking:
            return await self.control.ask(request)

    def unread_messages(self) -> list[str]:
        """The texts of messages that it printed, and nobody waited for."""
        texts = []
        while not self.events.empty():
            event = self.events.get_nowait()
            if event["event"] == "message":
                texts.append(self.text_of(event))
        return texts

    @staticmethod
    def text_of(event: dict[str, Any]) -> str:
        """The text of a `message` event: JSON carries bytes as base64."""
        return base64.b64decode(event["data"]).decode()

    async def join(self, seed_url: str | None) -> dict[str, Any]:
        """Start it; gives the event that says how it came in."""
        seed = ["--seed", seed_url] if seed_url else []
        await self.start("join", *seed, "--listen", _LOOPBACK)
        entered = await self.event("entered")
        await self.event("published")
        self.id = (await self.event("ready"))["peer"]
        self.control = await self.connect()
        return entered


class DemoNetwork:
    """A seed and peers on loopback, with profiles in a temporary folder; all are gone with it."""

    def __init__(self, k: int) -> None:
        self.seed_url = ""
        self.seed: DemoProcess
        self.peers: list[DemoPeer] = []
        self._folder: Path | None = None
        self._k = k
        self._seed_sockets: list[Address] = []

    async def __aenter__(self) -> Self:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="atonce-demo-"))
        except OSError as error:
            raise ControlError(f"there is no temporary folder for the profiles: {error.strerror}; set TMPDIR") from None
        self.seed = DemoProcess(self._folder / "seed")
        try:
            await self.seed.start("seed", "--network", "demo", "--k", str(self._k), "--local", "--listen", _LOOPBACK)
            said = await self.seed.event("seed")
        except BaseException:
            await self._end()
            raise
        self.seed_url = said["url"]
        self._seed_sockets = [parse_address(said["tcp"]), parse_address(said["udp"][0])]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        for peer in self.peers:
            if hasattr(peer, "control"):
                peer.control.close()
        # One that fails to stop must not keep the others alive.
        outcomes = await asyncio.gather(*(one.stop() for one in [self.seed, *self.peers]), return_exceptions=True)
        self._remove_folder()
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def end_at_once(self) -> None:
        """SIGKILL to all, without waiting: the user wants to be rid of us."""
        for one in [self.seed, *self.peers] if self._folder is not None else []:
            one.kill_at_once()
        self._remove_folder()

    def _remove_folder(self) -> None:
        # Whoever was killed just now may yet finish the write that it was in.
        for _ in range(_REMOVALS):
            if self._folder is None or not self._folder.exists():
                return
            shutil.rmtree(self._folder, ignore_errors=True)
            time.sleep(_REMOVAL_PAUSE_S)

    async def add_peers(self, count: int) -> AsyncIterator[tuple[DemoPeer, dict[str, Any]]]:
        """Start `count` peers, a few at a time; gives each as it comes in."""
        at_once = asyncio.Semaphore(2 * (os.cpu_count() or 1))
        assert self._folder is not None
        folder = self._folder

        async def add(number: int) -> tuple[DemoPeer, dict[str, Any]]:
            async with at_once:
                peer = DemoPeer(folder / f"peer-{number:02}")
                self.peers.append(peer)
                return peer, await peer.join(self.seed_url)

        tasks = [asyncio.create_task(add(number)) for number in range(1, count + 1)]
        try:
            for finished in asyncio.as_completed(tasks):
                yield await finished
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def kill_seed(self) -> "SeedGrave":
        """SIGKILL the seed, and listen where it listened. Raises `ControlError` if somebody else does."""
        await self.seed.kill()
        tcp, udp = self._seed_sockets
        try:
            return SeedGrave(tcp, udp)
        except OSError as error:
            raise ControlError(f"nobody can be counted at the dead seed's ports: {error.strerror}") from None


class SeedGrave:
    """Sits on the ports of the dead seed and counts who still calls."""

    def __init__(self, tcp: Address, udp: Address) -> None:
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._tcp.setblocking(False)
        self._tcp.bind(tcp)
        self._tcp.listen(1024)
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.setblocking(False)
        self._udp.bind(udp)

    @property
    def addresses(self) -> tuple[Address, Address]:
        """TCP and UDP."""
        return Address(*self._tcp.getsockname()), Address(*self._udp.getsockname())

    def close(self) -> tuple[int, int]:
        """How many datagrams and connections came; nobody is listened to any more."""
        datagrams = connections = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                self._udp.recv(2048)
                datagrams += 1
        with contextlib.suppress(BlockingIOError):
            while True:
                self._tcp.accept()[0].close()
                connections += 1
        self._udp.close()
        self._tcp.close()
        return datagrams, connections
