"""A network for the demo's trial that only seems to be one, so that it can break any promise at once."""

import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

from dht_atonce.cli.control import Lookup, Request, Send, Status
from dht_atonce.cli.demo_network import DemoNetwork, DemoPeer, DemoProcess, SeedGrave
from dht_atonce.cli.demo_trial import Trial
from dht_atonce.cli.demo_view import JsonView, View
from dht_atonce.cli.output import Output
from dht_atonce.endpoints import Address
from dht_atonce.errors import AtOnceError

PHASES = [
    "join",
    "lookups, seed alive",
    "messages, seed alive",
    "lookups, seed killed",
    "messages, seed killed",
    "restart, no seed",
    "messages with it",
]


class FakePeer(DemoPeer):
    """Answers as a peer of a good network does. A test replaces what it wants to be otherwise."""

    def __init__(self, folder: Path, network: "FakeNetwork") -> None:
        super().__init__(folder)
        self.network = network
        self.control = FakeControl()  # type: ignore[assignment]
        self.came_by = "seed"
        self.id = folder.name

    async def ask(self, request: Request) -> dict[str, Any]:
        match request:
            case Status():
                return {"saved_contacts": 3}
            case Lookup(peer):
                return self.network.lookup(self, peer)
            case Send(peer, data):
                self.network.deliver(peer, data)
                return {"elapsed_ms": 1.0}

    async def kill(self) -> None:
        pass

    async def join(self, seed_url: str | None) -> dict[str, Any]:
        if seed_url is None:
            self.came_by = "saved contacts"
            self.network.on_restart(self)
        return {"elapsed_ms": 1.0, "way": self.came_by}


class FakeControl:
    """A connection that nobody needs."""

    def __init__(self, status: dict[str, int] | None = None) -> None:
        self._status = status or {}

    async def ask(self, request: Request) -> dict[str, int]:
        return {"unsolicited_datagrams": 0, "pending_datagrams": 0, "returned_messages": 0} | self._status

    def close(self) -> None:
        pass


class FakeSeed(DemoProcess):
    """A seed that nobody needed."""

    status: dict[str, int]

    async def connect(self) -> Any:
        return FakeControl(self.status)


class FakeNetwork(DemoNetwork):
    """Peers that answer from this one object."""

    def __init__(self) -> None:
        super().__init__(4)
        self.seed = FakeSeed(Path("seed"))
        self.seed.status = {}
        self.by_id: dict[str, FakePeer] = {}
        self.on_restart: Callable[[FakePeer], None] = lambda _: None
        self.grave: SeedGrave | None = None
        self.lookup: Callable[[FakePeer, str], dict[str, Any]] = self._lookup
        self.deliver: Callable[[str, bytes], None] = self._deliver

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def add_peers(self, count: int) -> AsyncIterator[tuple[DemoPeer, dict[str, Any]]]:
        for number in range(count):
            peer = FakePeer(Path(f"peer-{number}"), self)
            self.peers.append(peer)
            self.by_id[peer.id] = peer
            yield peer, await peer.join("atonce://")

    def _lookup(self, asker: FakePeer, wanted: str) -> dict[str, Any]:
        return {"record": {"peer": wanted, "status": "online"}, "local": False, "elapsed_ms": 1.0}

    def _deliver(self, to: str, data: bytes) -> None:
        event = {"event": "message", "sender": "somebody", "data": base64.b64encode(data).decode()}
        self.by_id[to].events.put_nowait(event)

    async def kill_seed(self) -> SeedGrave:
        self.grave = SeedGrave(Address("127.0.0.1", 0), Address("127.0.0.1", 0))
        return self.grave


class Silence(JsonView):
    """A view that shows nothing."""

    def __init__(self) -> None:
        super().__init__(Output(as_json=True))

    def step(self, text: str) -> None:
        pass

    def joined(self, phase: Any, who: str, way: str) -> None:
        pass

    def end(self, phase: Any) -> None:
        pass


async def trial_of(network: FakeNetwork, view: View | None = None) -> Trial:
    """All steps, and the look back."""
    trial = Trial(network, view or Silence())
    try:
        await trial.run(8, 20, 20)
    except AtOnceError as error:
        trial.problems.append(str(error))
    trial.look_back()
    return trial
