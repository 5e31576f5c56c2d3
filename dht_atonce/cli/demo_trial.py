"""What a demo does with its network, and what it measures."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from dht_atonce.cli.control import Lookup, Send, Status
from dht_atonce.cli.demo_network import DemoNetwork, DemoPeer, SeedGrave
from dht_atonce.cli.demo_view import Phase, View
from dht_atonce.errors import AtOnceError

__all__ = ["Phase", "Trial"]

_AT_ONCE = 4  # so few that a time is the network's, not that of waiting for one of two cores
_MOST_LOCAL = 500  # pairs tried for one lookup before everybody counts as holding everything
_SAVE_LOOKS, _SAVE_PAUSE_S = 50, 0.1
_PRINTED_S = 5.0  # an acknowledged message is in the receiver's queue; its process prints it a moment later


class Trial:
    """Runs the steps one by one. What goes wrong in one is a problem, and the next one runs all the same."""

    def __init__(self, network: DemoNetwork, view: View) -> None:
        self.phases: list[Phase] = []
        self.rows: list[Phase | str] = []
        """The phases, and what happened between them."""
        self.problems: list[str] = []
        self.to_seed: dict[str, int] = {}
        """What peers sent to the seed after their first live contact."""
        self._network = network
        self._view = view
        self._rng = random.Random(0)
        self._sent = itertools.count()
        self._grave: SeedGrave | None = None
        self._is_complete = False

    @property
    def held(self) -> bool:
        """Whether all was done, and as promised."""
        return self._is_complete and not self.problems and all(phase.right == phase.asked for phase in self.phases)

    async def run(self, peers: int, lookups: int, messages: int) -> None:
        """All steps. Raises `AtOnceError` if what comes next makes no sense any more."""
        await self.join(peers)
        await self.lookups("lookups, seed alive", lookups, "one asks the DHT where another one is")
        await self.messages("messages, seed alive", messages, "direct; printed there exactly once")
        await self.kill_seed()
        await self.lookups("lookups, seed killed", lookups, "as before: nobody needs a seed for it")
        await self.messages("messages, seed killed", messages, "as before, and no server anywhere")
        await self.restart_one()
        self._is_complete = True

    async def join(self, count: int) -> None:
        """Start the peers; the time of each is from its start of `Peer.open` until it was in."""
        phase = self._begin("join", count, "peer and seed prove who they are")
        async for peer, entered in self._network.add_peers(count):
            self._did(phase, entered["elapsed_ms"])
            self._view.joined(phase, peer.folder.name, entered["way"])
        self._end(phase)

    async def lookups(self, name: str, count: int, shows: str = "") -> None:
        """Random peers look up random others; only lookups that leave the node count."""
        phase = self._begin(name, count, shows)
        await self._many(count, lambda: self._lookup(phase))
        self._end(phase)

    async def messages(self, name: str, count: int, shows: str = "") -> None:
        """Random peers send to random others, each message once and acknowledged; then the receivers are asked."""
        phase = self._begin(name, count, shows)
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
        self.rows.append("the seed is killed")
        self._view.step("the seed is killed")

    async def restart_one(self) -> None:
        """Kill a peer, start it again without any seed; it must be found and reached as before."""
        phase = self._begin("restart, no seed", 1, "killed, it comes back by saved contacts")
        peer = self._rng.choice(self._network.peers)
        others = [other for other in self._network.peers if other is not peer]
        await self._until_saved(peer)
        before = peer.id
        peer.control.close()
        await peer.kill()
        self._expect_nothing_more(peer)
        peer.events = asyncio.Queue(maxsize=100_000)
        entered = await peer.join(None)
        if peer.id == before and entered["way"] == "saved contacts":
            self._did(phase, entered["elapsed_ms"])
        else:
            self._went_wrong(phase, f"{peer.folder.name} came back by {entered['way']}, as {peer.id[:8]}…")
        self._end(phase)
        both = [(other, peer) for other in others[:4]] + [(peer, other) for other in others[:4]]
        phase = self._begin("messages with it", len(both), "reached under its old PeerId again")
        expected: dict[str, Counter[str]] = {each.id: Counter() for each in self._network.peers}
        for sender, receiver in both:
            await self._message(phase, expected, sender, receiver)
        await self._check_received(phase.name, expected)
        self._end(phase)

    def look_back(self) -> None:
        """When all have ended: who still called at the dead seed's ports, and what came twice or unasked for."""
        if self._grave is not None:
            datagrams, connections = self._grave.close()
            self.to_seed["datagrams"] += datagrams
            self.to_seed["messages"] += connections
        for what, number in self.to_seed.items():
            if number:
                self.problems.append(f"{number} {what} went to the seed of the peers' own accord")
        for peer in self._network.peers:
            self._expect_nothing_more(peer)

    # --- inside ---

    def _expect_nothing_more(self, peer: DemoPeer) -> None:
        """Each message was read when it was expected; what is left came twice, or from nobody."""
        self.problems += [f"{peer.folder.name} got a message too many: {text}" for text in peer.unread_messages()]

    async def _until_saved(self, peer: DemoPeer) -> None:
        """A peer saves its contacts two seconds after the first one; only the first peer of all may be that young."""
        saved = False
        for _ in range(_SAVE_LOOKS):
            was_saved, saved = saved, bool((await peer.ask(Status()))["saved_contacts"])
            if was_saved:
                return  # a look earlier already: so they are on the disk by now
            await asyncio.sleep(_SAVE_PAUSE_S)
        self.problems.append(f"{peer.folder.name} saved no contacts")

    async def _lookup(self, phase: Phase) -> None:
        for _ in range(_MOST_LOCAL):
            asker, wanted = self._rng.sample(self._network.peers, 2)
            try:
                reply = await asker.ask(Lookup(wanted.id))
            except AtOnceError as error:
                self._went_wrong(phase, f"{asker.folder.name}: {error}")
                return
            if reply["local"]:
                phase.local += 1
                continue
            record = reply["record"]
            if record is not None and record["peer"] == wanted.id and record["status"] == "online":
                self._did(phase, reply["elapsed_ms"])
            else:
                self._went_wrong(phase, f"{asker.folder.name} did not find {wanted.folder.name}")
            return
        self._went_wrong(phase, "every record was in the asker's own store")

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
            self._went_wrong(phase, f"{sender.folder.name} to {receiver.folder.name}: {error}")
            return
        self._did(phase, reply["elapsed_ms"])
        expected[receiver.id][text] += 1

    async def _check_received(self, name: str, expected: dict[str, Counter[str]]) -> None:
        for peer in self._network.peers:
            missing = expected[peer.id]
            while missing.total():
                try:
                    event = await peer.event("message", _PRINTED_S)
                except AtOnceError:
                    number = missing.total()
                    self.problems.append(
                        f"{name}: {number} acknowledged messages never reached the app of {peer.folder.name}"
                    )
                    break
                text = peer.text_of(event)
                if missing[text]:
                    missing[text] -= 1
                else:
                    self.problems.append(f"{name}: {peer.folder.name} got a message too many: {text}")

    async def _many(self, count: int, step: Callable[[], Awaitable[None]]) -> None:
        numbers = iter(range(count))

        async def work() -> None:
            for _ in numbers:
                await step()

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))

    def _begin(self, name: str, asked: int, shows: str) -> Phase:
        phase = Phase(name, asked, shows)
        self.phases.append(phase)
        self.rows.append(phase)
        self._view.begin(phase)
        return phase

    def _did(self, phase: Phase, elapsed_ms: float) -> None:
        phase.right += 1
        phase.done += 1
        phase.times_ms.append(elapsed_ms)
        self._view.progress(phase)

    def _went_wrong(self, phase: Phase, problem: str) -> None:
        phase.done += 1
        self.problems.append(f"{phase.name}: {problem}")
        self._view.progress(phase)

    def _end(self, phase: Phase) -> None:
        phase.is_over = True
        self._view.end(phase)
