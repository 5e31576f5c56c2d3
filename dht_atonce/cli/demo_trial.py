"""What a demo does with its network, and what it measures."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from dht_atonce.cli.control import Lookup, Send, Status
from dht_atonce.cli.demo_network import DemoNetwork, DemoPeer, SeedGrave
from dht_atonce.cli.output import Output
from dht_atonce.errors import AtOnceError

__all__ = ["Phase", "Trial"]

_AT_ONCE = 4  # so few that a time is the network's, not that of waiting for one of two cores
_MOST_LOCAL = 500  # pairs tried for one lookup before everybody counts as holding everything


@dataclass(slots=True)
class Phase:
    """One row of the table."""

    name: str
    asked: int = 0
    right: int = 0
    local: int = 0
    """Lookups that the node's own store answered: apart, for they are none."""
    times_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The figures, times in milliseconds."""
        times = sorted(self.times_ms) or [0.0]
        return {
            "phase": self.name,
            "asked": self.asked,
            "right": self.right,
            "local": self.local,
            "p50_ms": round(times[len(times) // 2], 2),
            "p99_ms": round(times[len(times) * 99 // 100], 2),
            "max_ms": round(times[-1], 2),
        }


class Trial:
    """Runs the steps one by one. A step that fails is a problem, and the next one runs all the same."""

    def __init__(self, network: DemoNetwork, output: Output) -> None:
        self.phases: list[Phase] = []
        self.problems: list[str] = []
        self.to_seed: dict[str, int] = {}
        """What peers sent to the seed after their first live contact."""
        self._network = network
        self._output = output
        self._rng = random.Random(0)
        self._sent = itertools.count()
        self._grave: SeedGrave | None = None

    @property
    def held(self) -> bool:
        """Whether all was as promised."""
        return not self.problems and all(phase.right == phase.asked for phase in self.phases)

    async def join(self, count: int) -> None:
        """Start the peers; the time of each is from its start of `Peer.open` until it was in."""
        phase = self._begin("join", count)
        async for peer, entered in self._network.add_peers(count):
            phase.right += 1
            phase.times_ms.append(entered["elapsed_ms"])
            self._progress(phase, f"{peer.folder.name} is in by {entered['way']}")
        self._end(phase)

    async def lookups(self, name: str, count: int) -> None:
        """Random peers look up random others; only lookups that leave the node count."""
        phase = self._begin(name, count)
        await self._many(count, lambda: self._lookup(phase))
        self._end(phase)

    async def messages(self, name: str, count: int) -> None:
        """Random peers send to random others, each message once and acknowledged; then the receivers are asked."""
        phase = self._begin(name, count)
        expected: dict[str, Counter[str]] = {peer.id: Counter() for peer in self._network.peers}
        await self._many(count, lambda: self._message(phase, expected))
        await self._check_received(name, expected)
        self._end(phase)

    async def kill_seed(self) -> None:
        """Ask the seed what came of itself, then kill it."""
        control = await self._network.seed.connect()
        status = await control.ask(Status())
        control.close()
        self.to_seed = {
            "datagrams": status["unsolicited_datagrams"] + status["pending_datagrams"],
            "messages": status["returned_messages"],
        }
        self._grave = await self._network.kill_seed()
        self._say("the seed is killed")

    async def restart_one(self) -> None:
        """Kill a peer, start it again without any seed; it must be found and reached as before."""
        phase = self._begin("restart, no seed", 1)
        peer = self._rng.choice(self._network.peers)
        others = [other for other in self._network.peers if other is not peer]
        await self._until_saved(peer)
        before = peer.id
        peer.control.close()
        await peer.kill()
        peer.events = asyncio.Queue(maxsize=100_000)
        entered = await peer.join(None)
        phase.times_ms.append(entered["elapsed_ms"])
        if peer.id == before and entered["way"] == "saved contacts":
            phase.right = 1
        else:
            self.problems.append(f"{peer.folder.name} came back by {entered['way']}")
        self._end(phase)
        both = [(other, peer) for other in others[:4]] + [(peer, other) for other in others[:4]]
        phase = self._begin("messages with it", len(both))
        expected: dict[str, Counter[str]] = {each.id: Counter() for each in self._network.peers}
        for sender, receiver in both:
            await self._message(phase, expected, sender, receiver)
        await self._check_received(phase.name, expected)
        self._end(phase)

    async def count_calls_to_seed(self) -> None:
        """How many still called at the dead seed's ports."""
        if self._grave is not None:
            datagrams, connections = self._grave.close()
            self.to_seed["datagrams"] += datagrams
            self.to_seed["messages"] += connections
        for what, count in self.to_seed.items():
            if count:
                self.problems.append(f"{count} {what} went to the seed of the peers' own accord")

    # --- inside ---

    async def _until_saved(self, peer: DemoPeer) -> None:
        """A peer saves its contacts two seconds after the first one; only the first peer of all may be that young."""
        for _ in range(50):
            if (await peer.ask(Status()))["saved_contacts"]:
                return
            await asyncio.sleep(0.1)
        self.problems.append(f"{peer.folder.name} saved no contacts")

    async def _lookup(self, phase: Phase) -> None:
        for _ in range(_MOST_LOCAL):
            asker, wanted = self._rng.sample(self._network.peers, 2)
            try:
                reply = await asker.ask(Lookup(wanted.id))
            except AtOnceError as error:
                self.problems.append(f"{phase.name}: {error}")
                return
            if reply["local"]:
                phase.local += 1
                continue
            record = reply["record"]
            if record is not None and record["peer"] == wanted.id and record["status"] == "online":
                phase.right += 1
                phase.times_ms.append(reply["elapsed_ms"])
            else:
                self.problems.append(f"{phase.name}: {asker.folder.name} did not find {wanted.folder.name}")
            return
        self.problems.append(f"{phase.name}: every record was in the asker's own store")

    async def _message(
        self,
        phase: Phase,
        expected: dict[str, Counter[str]],
        sender: DemoPeer | None = None,
        receiver: DemoPeer | None = None,
    ) -> None:
        if sender is None or receiver is None:
            sender, receiver = self._rng.sample(self._network.peers, 2)
        text = f"message {next(self._sent)} from {sender.folder.name}"
        try:
            reply = await sender.ask(Send(receiver.id, text.encode()))
        except AtOnceError as error:
            self.problems.append(f"{phase.name}: {sender.folder.name} to {receiver.folder.name}: {error}")
            return
        phase.right += 1
        phase.times_ms.append(reply["elapsed_ms"])
        expected[receiver.id][text] += 1

    async def _check_received(self, name: str, expected: dict[str, Counter[str]]) -> None:
        """An acknowledged message is in the receiver's queue; its process prints it a moment later."""
        for peer in self._network.peers:
            missing = expected[peer.id]
            while missing.total():
                try:
                    event = await peer.event("message", 5.0)
                except AtOnceError:
                    self.problems.append(
                        f"{name}: {missing.total()} acknowledged messages never reached {peer.folder.name}"
                    )
                    break
                text = peer.text_of(event)
                if not missing[text]:
                    self.problems.append(f"{name}: {peer.folder.name} got a message twice: {text}")
                    break
                missing[text] -= 1

    async def _many(self, count: int, step: Callable[[], Awaitable[None]]) -> None:
        numbers = iter(range(count))

        async def work() -> None:
            for _ in numbers:
                await step()

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))

    def _begin(self, name: str, asked: int) -> Phase:
        phase = Phase(name, asked)
        self.phases.append(phase)
        self._say(f"{name} …")
        return phase

    def _progress(self, phase: Phase, text: str) -> None:
        self._output.event(
            "progress",
            {"phase": phase.name, "done": phase.right, "of": phase.asked},
            lambda _: f"[dim]  {phase.right:3} of {phase.asked}  {text}[/]",
        )

    def _say(self, text: str) -> None:
        self._output.event("step", {"text": text}, lambda _: text)

    def _end(self, phase: Phase) -> None:
        figures = phase.summary()
        self._output.event("phase", figures, lambda _: f"[dim]  {figures['right']} of {figures['asked']} right[/]")
