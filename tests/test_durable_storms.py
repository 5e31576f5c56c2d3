"""Durable messages while machines die, disks fill up and cables are cut in any order: nothing acknowledged is lost,
nothing comes after the app was done with it, and each sender's order is kept."""

import asyncio
import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_durable import Resident, config, two
from support_peers import Village, until, virtual

from atonce_sim.world import World
from dht_atonce.durable.receipt import DurableReceipt
from dht_atonce.messaging.receipts import State

WHO = ("alice", "bob")


@dataclass
class Storm:
    """What happened, and what must be true of it."""

    village: Village
    alice: Resident
    bob: Resident
    posted: list[tuple[int, DurableReceipt]]
    number: int = 0

    def resident(self, name: str) -> Resident:
        return self.alice if name == "alice" else self.bob

    def post(self, count: int) -> None:
        for _ in range(count):
            if self.alice.host.is_down:
                return
            receipt = self.alice.peer.post(self.bob.id, b"%d" % self.number, durable=True)
            self.posted.append((self.number, receipt))
            self.number += 1

    async def restart(self, name: str, away_s: float) -> None:
        one = self.resident(name)
        one.crash()
        await asyncio.sleep(away_s)
        await one.start_again()

    async def happen(self, event: tuple[str, object]) -> None:
        what, how = event
        world = self.village.world
        match what:
            case "post":
                assert isinstance(how, int)
                self.post(how)
            case "wait":
                assert isinstance(how, float)
                await asyncio.sleep(how)
            case "restart":
                assert isinstance(how, str)
                await self.restart(how, 5.0)
            case "cut":
                world.unreachable.add(self.bob.host.ip)
            case "heal":
                world.unreachable.discard(self.bob.host.ip)
            case "disk":
                assert isinstance(how, tuple)
                name, commit_s, full = how
                faults = self.resident(name).host.disk_faults
                faults.commit_s, faults.full = commit_s, full

    async def calm_down(self) -> None:
        """All is well again: what was kept arrives."""
        self.village.world.unreachable.discard(self.bob.host.ip)
        for one in (self.alice, self.bob):
            one.host.disk_faults.commit_s, one.host.disk_faults.full = 0.0, False
        await asyncio.sleep(1)
        # Those whose disk was full may hold messages that they could not be done with.
        await self.restart("bob", 1.0)
        kept = {receipt.id for _, receipt in self.posted if receipt.is_kept}
        await until(lambda: kept <= set(self.bob.finished), 900)

    def check(self) -> None:
        order = {receipt.id: number for number, receipt in self.posted}
        firsts = list(dict.fromkeys(message.id for message in self.bob.got))
        numbers = [order[message_id] for message_id in firsts]
        assert numbers == sorted(numbers), "order"
        assert self.bob.after_done == []
        acknowledged = {receipt.id for _, receipt in self.posted if receipt.state is State.DELIVERED}
        assert acknowledged <= set(firsts)
        assert {message.id: message.data for message in self.bob.got} == {
            receipt.id: b"%d" % number for number, receipt in self.posted if receipt.id in firsts
        }


DISKS = st.tuples(st.sampled_from(WHO), st.sampled_from([0.0, 0.05, 3.0]), st.booleans())
EVENTS = st.one_of(
    st.tuples(st.just("post"), st.integers(1, 30)),
    st.tuples(st.just("post"), st.integers(1, 30)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.03, 0.06, 0.3, 3.0, 30.0])),
    st.tuples(st.just("restart"), st.sampled_from(WHO)),
    st.tuples(st.just("cut"), st.none()),
    st.tuples(st.just("heal"), st.none()),
    st.tuples(st.just("disk"), DISKS),
)


async def weather(seed: int, events: list[tuple[str, object]]) -> Storm:
    async with Village(World(seed)) as village:
        small = config(window_messages=8, ready_messages=8)
        alice, bob = await two(village, config=small, keep_trying=True)
        storm = Storm(village, alice, bob, [])
        for event in events:
            await storm.happen(event)
        await storm.calm_down()
        storm.check()
        return storm


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(EVENTS, min_size=3, max_size=14))
def test_nothing_is_lost_doubled_or_out_of_order(seed: int, events: list[tuple[str, object]]) -> None:
    virtual(weather(seed, events))


def drawn(seed: int) -> list[tuple[str, object]]:
    """A long storm."""
    rng = random.Random(seed)
    events: list[tuple[str, object]] = []
    for _ in range(60):
        what = rng.choice(["post"] * 4 + ["wait"] * 4 + ["restart", "cut", "heal", "heal", "disk"])
        how: object = None
        if what == "post":
            how = rng.randrange(1, 40)
        elif what == "wait":
            how = rng.choice([0.0, 0.03, 0.06, 0.3, 3.0, 30.0])
        elif what == "restart":
            how = rng.choice(WHO)
        elif what == "disk":
            how = (rng.choice(WHO), rng.choice([0.0, 0.0, 0.05, 3.0]), rng.random() < 0.2)
        events.append((what, how))
    return events


@pytest.mark.parametrize("seed", range(3))
def test_a_long_storm(seed: int) -> None:
    storm = virtual(weather(seed, drawn(seed)))
    assert storm.number > 100


def test_a_storm_is_the_same_each_time() -> None:
    def digest() -> tuple[object, ...]:
        storm = virtual(weather(7, drawn(7)))
        return (storm.village.world.trace.digest, storm.bob.heard, storm.bob.peer.counters)

    assert digest() == digest()
