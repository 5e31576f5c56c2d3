"""A chat: what you type is said to everybody. Usage: python examples/chat.py atonce://PEERID@HOST:PORT ROOM NAME"""

import asyncio
import sys

from dht_atonce import AtOnceError, Entered, Left, Missed, Peer, Room, Said


async def show(room: Room) -> None:
    names = {}
    async for event in room.events():
        match event:
            case Entered(peer, name):
                names[peer] = name
                print(f"* {name} is here", flush=True)
            case Left(peer, reason):
                print(f"* {names.get(peer, peer.short)} has gone ({reason})", flush=True)
            case Said(peer, data):
                print(f"{names.get(peer, peer.short)}: {data.decode(errors='replace')}", flush=True)
            case Missed(peer, _, count):
                print(f"* {count} of {names.get(peer, peer.short)} missed", flush=True)


async def main(seed_url: str, topic: str, name: str) -> None:
    async with Peer.open(seeds=[seed_url]) as peer, peer.join(topic, name=name, last=20) as room:
        showing = asyncio.create_task(show(room))
        while line := await asyncio.to_thread(sys.stdin.readline):
            await room.shout(line.rstrip("\n").encode())
        await room.flush()
        showing.cancel()


if __name__ == "__main__":
    try:
        asyncio.run(main(*(sys.argv[1:4] if len(sys.argv) > 3 else sys.exit(__doc__))))
    except AtOnceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
