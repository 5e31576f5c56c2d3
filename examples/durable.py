"""A work queue that outlives its processes: what was given is done once or more, also after crashes on both sides.

    python examples/durable.py work SEED_URL PROFILE                  prints its PeerId, then what it does
    python examples/durable.py give SEED_URL PROFILE PEERID JOB…      ends when all jobs are on the worker's disk

Kill either as you like, and start it again with the same PROFILE.
"""

import asyncio
import sys

from dht_atonce import AtOnceError, DurableMessage, Peer


async def work(seed_url: str, profile: str) -> None:
    async with Peer.open(profile, seeds=[seed_url]) as peer:
        print("ready", peer.id, flush=True)
        async for message in peer.messages():
            if isinstance(message, DurableMessage):
                # If `again`, an earlier run may have done it: what must not be done twice is looked up by its id.
                print("again" if message.again else "new", message.id.hex(), message.data.decode(), flush=True)
                await message.done()
                print("done", message.id.hex(), flush=True)


async def give(seed_url: str, profile: str, worker: str, jobs: list[str]) -> None:
    async with Peer.open(profile, seeds=[seed_url]) as peer:
        receipts = [await peer.send(worker, job.encode(), durable=True, expires_s=3600) for job in jobs]
        print("kept", len(receipts), flush=True)  # from here on they arrive, even if this process dies
        for receipt in receipts:
            await receipt
        print("delivered", len(receipts), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        if sys.argv[1] == "work":
            asyncio.run(work(*sys.argv[2:4]))
        else:
            asyncio.run(give(*sys.argv[2:5], sys.argv[5:]))
    except AtOnceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
