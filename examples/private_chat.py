"""A chat among those who know each other: nobody else gets in.

python examples/private_chat.py atonce://PEERID@HOST:PORT PROFILE [NAME=PEERID …]

Whoever is named is a contact from then on, also next time. Each line of standard input goes to all contacts; a line
`/add NAME=PEERID` makes one more contact, `/remove NAME` one less, and its link ends at once.
"""

import asyncio
import sys

from dht_atonce import AtOnceError, NotAccepted, Peer, PeerId


async def lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def add(peer: Peer, friend: str) -> None:
    name, _, peer_id = friend.partition("=")
    await peer.contacts.add(peer_id, name)
    print(f"* {name} may come in", flush=True)


async def obey(peer: Peer, line: str) -> None:
    names = peer.contacts.list()
    if line.startswith("/add "):
        await add(peer, line.removeprefix("/add "))
    elif line.startswith("/remove "):
        for peer_id in [who for who, name in names.items() if name == line.removeprefix("/remove ")]:
            await peer.contacts.remove(peer_id)
            print(f"* {names[peer_id]} is out", flush=True)
    else:
        await asyncio.gather(*(say(peer, who, line) for who in peer.contacts))


async def say(peer: Peer, who: PeerId, line: str) -> None:
    name = peer.contacts.name(who)
    try:
        await peer.send(who, line.encode())
    except NotAccepted:
        print(f"* {name} has not added you", flush=True)
    except AtOnceError as error:
        print(f"* not to {name}: {error}", flush=True)


async def main(seed_url: str, profile: str, friends: list[str]) -> None:
    async with Peer.open(profile, seeds=[seed_url], accept="contacts") as peer, asyncio.TaskGroup() as tasks:
        print("you are", peer.id, flush=True)
        for friend in friends:
            await add(peer, friend)

        async def show() -> None:
            async for message in peer.messages():
                # It may be in the queue from before the sender was removed.
                if message.sender in peer.contacts:
                    print(f"{peer.contacts.name(message.sender)}: {message.data.decode(errors='replace')}", flush=True)

        showing = tasks.create_task(show())
        typed = await lines()
        while line := await typed.readline():
            try:
                await obey(peer, line.decode(errors="replace").strip())
            except (AtOnceError, ValueError) as error:
                print(f"* {error}", flush=True)
        showing.cancel()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
    except AtOnceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
