"""A board of who is here, kept up to date. Usage: python examples/presence_board.py atonce://PEERID@HOST:PORT NAME"""

import asyncio
import sys

from dht_atonce import AtOnceError, Neighbour, Peer

LOOK_S = 2.0


async def follow(peer: Peer, who: Neighbour) -> None:
    async with peer.watch(who.peer) as watch:
        async for event in watch:
            print(f"{who.text}: {event.change.value}, {event.status}", flush=True)


async def main(seed_url: str, name: str) -> None:
    async with Peer.open(seeds=[seed_url]) as peer, asyncio.TaskGroup() as tasks:
        await peer.be_found(name)
        print("you are here as", name, flush=True)
        known = set()
        while True:
            for who in await peer.around():
                if who.peer not in known:
                    known.add(who.peer)
                    tasks.create_task(follow(peer, who))
            await asyncio.sleep(LOOK_S)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2]))
    except AtOnceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
