"""A service, and whoever asks it: what things cost.

python examples/service.py serve atonce://PEERID@HOST:PORT [PROFILE]
python examples/service.py ask atonce://PEERID@HOST:PORT PEERID WHAT…
"""

import asyncio
import sys

from dht_atonce import AtOnceError, NoSuchService, Peer, PeerBusy, ReplyError, Request, RequestFailed, RequestTimeout

PRICES = {"bread": 4, "butter": 3, "salt": 1}


async def serve(seed_url: str, profile: str | None) -> None:
    async with Peer.open(profile, seeds=[seed_url]) as peer:

        @peer.serve("price")
        async def price(request: Request) -> bytes:
            what = request.data.decode(errors="replace")
            if what not in PRICES:
                raise ReplyError("not-sold", f"there is no {what} here")
            return b"%d" % PRICES[what]

        print("ask", peer.id, flush=True)
        await asyncio.Event().wait()


async def ask(seed_url: str, shop: str, things: list[str]) -> None:
    # `transient`: for a moment only, so nobody needs to find us.
    async with Peer.open(seeds=[seed_url], transient=True) as peer:

        async def price(what: str) -> str:
            try:
                reply = await peer.request(shop, what.encode(), service="price", timeout_s=5)
            except (NoSuchService, PeerBusy) as error:
                return f"try elsewhere, or later ({error})"
            except RequestFailed as error:
                return f"none: {error.text}" if error.code == "not-sold" else "the shop has a bug"
            except RequestTimeout as error:
                return "no answer" if error.may_have_run else "no answer, and it was not even asked"
            return reply.decode()

        for what, answer in zip(things, await asyncio.gather(*map(price, things)), strict=True):
            print(f"{what}: {answer}", flush=True)


if __name__ == "__main__":
    try:
        if len(sys.argv) > 2 and sys.argv[1] == "serve":
            asyncio.run(serve(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
        elif len(sys.argv) > 4 and sys.argv[1] == "ask":
            asyncio.run(ask(sys.argv[2], sys.argv[3], sys.argv[4:]))
        else:
            sys.exit(__doc__)
    except AtOnceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        pass
