"""Answers every message with the same words. Usage: python examples/echo.py atonce://PEERID@HOST:PORT [PROFILE]"""

import asyncio
import sys

from dht_atonce import AtOnceError, Peer


async def main(seed_url: str, profile: str | None) -> None:
    async with Peer.open(profile=profile, seeds=[seed_url]) as peer:
        print("send something to", peer.id, flush=True)
        async for message in peer.messages():
            print(message.sender.short, message.data.decode(errors="replace"), flush=True)
            peer.post(message.sender, message.data)  # who has gone meanwhile is no reason to end


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
    except AtOnceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
