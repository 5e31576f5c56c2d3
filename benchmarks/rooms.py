"""A room of a thousand in the virtual world: does every shout reach everybody, and what does it cost?

    python benchmarks/rooms.py [MEMBERS] [SHOUTS]

Members come in twenty a second, over messengers and virtual links of 25 ms each way; the DHT is a list. Then members at
random shout, ten a second: in peace, then while every tenth crashes without a word, and again afterwards. Signatures
are real, but each is verified once for all members, not once for each.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support_peers import Town, now, virtual  # type: ignore[import-not-found]
from support_rooms import Hall, Member  # type: ignore[import-not-found]

from dht_atonce.rooms.events import Said

_SHOUT_S = 0.1
_SETTLE_S = 30.0


def spread(values: list[int]) -> str:
    """Lowest, median, highest."""
    values = sorted(values)
    return f"{values[0]} / {values[len(values) // 2]} / {values[-1]}"


def tell_links(members: list[Member]) -> None:
    known = [len(member.room.members()) + 1 for member in members]
    print(f"  members known: {spread(known)}; in tree mode: {sum(member.room.is_tree for member in members)}")
    neighbours = [len(member.room.machine.views.active) for member in members]
    print(f"  neighbours: {spread(neighbours)}; links: {spread([member.links for member in members])}", flush=True)


async def shouts(what: str, members: list[Member], count: int, rng: random.Random, wait_s: float) -> None:
    """Have members at random shout, and tell who heard it."""
    before = counted(members)
    at = {member: len(member.events) for member in members}
    began = time.process_time()
    expected: Counter[bytes] = Counter()
    for number in range(count):
        author = rng.choice(members)
        data = f"{what} {number}".encode()
        await author.room.shout(data)
        expected[data] = len(members) - 1
        await asyncio.sleep(_SHOUT_S)
    in_time_s = 5.0
    await asyncio.sleep(in_time_s)
    soon = heard(members, at)
    await asyncio.sleep(wait_s)
    got = heard(members, at)
    hops = sorted(hop for member in members for hop in hops_of(member, at[member]))
    spent = counted(members) - before
    total = sum(expected.values())
    twice = sum(n - expected[data] for data, n in got.items() if n > expected[data])
    print(f"{what}: {count} shouts to {len(members) - 1} others each")
    print(
        f"  heard {sum(soon.values())} of {total} within {in_time_s:g} s, {sum(got.values())} in the end, {twice} twice"
    )
    print(f"  hops: median {hops[len(hops) // 2]}, p99 {hops[len(hops) * 99 // 100]}, most {hops[-1]}")
    named = ("duplicates", "grafts", "shortcuts", "asked_by_digest", "repairs", "missed", "neighbours_changed")
    print("  per shout:", ", ".join(f"{name} {spent[f'rooms.{name}'] / count:.1f}" for name in named))
    print(
        f"  CPU {1000 * (time.process_time() - began) / count / len(members):.2f} ms per shout and member", flush=True
    )


def counted(members: list[Member]) -> Counter[str]:
    total: Counter[str] = Counter()
    for member in members:
        total.update(member.counters)
    return total


def heard(members: list[Member], at: dict[Member, int]) -> Counter[bytes]:
    said = (event for member in members for event in member.events[at[member] :])
    return Counter(event.data for event in said if isinstance(event, Said))


def hops_of(member: Member, at: int) -> list[int]:
    return [event.hops for event in member.events[at:] if isinstance(event, Said)]


async def main(size: int, count: int) -> None:
    rng = random.Random(1)
    began = time.process_time()
    async with Town() as town:
        hall = Hall(town)
        coming = []
        for number in range(1, size + 1):
            coming.append(asyncio.create_task(hall.member(number)))
            if number % 20 == 0:
                await asyncio.sleep(1.0)
        await asyncio.gather(*coming)
        members = hall.members
        print(f"{size} members came in within {now():.0f} s; CPU {time.process_time() - began:.0f} s")
        tell_links(members)
        await asyncio.sleep(_SETTLE_S)
        print(f"{_SETTLE_S:g} s later")
        tell_links(members)
        await shouts("first", members, count, rng, 5.0)  # it shapes the tree
        await shouts("in peace", members, count, rng, 5.0)
        gone = rng.sample(members, size // 10)
        for member in gone:
            member.person.vanish()
        left = [member for member in members if member not in gone]
        await shouts("a tenth crashed", left, count, rng, 30.0)
        tell_links(left)
        await shouts("afterwards", left, count, rng, 5.0)
        await hall.aclose()


if __name__ == "__main__":
    sizes = [int(word) for word in sys.argv[1:]]
    virtual(main(sizes[0] if sizes else 1000, sizes[1] if sizes[1:] else 20))
