"""A folder into which friends drop files. Usage:

python examples/file_drop.py SEED_URL FOLDER [FRIEND...]      take files, from anybody or from these PeerIds only
python examples/file_drop.py SEED_URL FILE --to PEERID        drop one
"""

import asyncio
import sys
from pathlib import Path

from dht_atonce import AtOnceError, FileEvent, Peer


def tell(event: FileEvent) -> None:
    print(event.peer.short, event.name, event.error or f"{event.size} bytes", flush=True)


async def take(seed_url: str, folder: Path, friends: list[str]) -> None:
    async with Peer.open(seeds=[seed_url]) as peer:
        peer.serve_files(receive=folder, accept=friends or None, on_event=tell)
        print("drop files to", peer.id, flush=True)
        await asyncio.Event().wait()  # until Ctrl-C


async def drop(seed_url: str, path: Path, to: str) -> None:
    async with Peer.open(seeds=[seed_url], transient=True) as peer:
        size = await peer.push_file(path, to)
        print(path.name, size, "bytes are there", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    seed_url, path, *rest = sys.argv[1:]
    try:
        asyncio.run(drop(seed_url, Path(path), rest[1]) if rest[:1] == ["--to"] else take(seed_url, Path(path), rest))
    except AtOnceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
