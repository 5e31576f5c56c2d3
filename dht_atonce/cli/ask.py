"""`atonce lookup`, `atonce send`, `atonce status`: short-lived commands.

They use the running process of the profile if there is one, and else take part for a moment themselves: without a seat,
and without publishing anything.
"""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from dht_atonce.cli.answers import answer
from dht_atonce.cli.control import ControlClient, Lookup, Send, Status
from dht_atonce.cli.join import checked_ips
from dht_atonce.cli.options import Json, Listen, Network, ProfileDir, Seeds, default_profile
from dht_atonce.cli.output import Output, escape
from dht_atonce.cli.running import run
from dht_atonce.errors import ControlError, MessageTooLarge, PeerOffline, PeerUnknown
from dht_atonce.identity import PeerId
from dht_atonce.peer import Peer

__all__ = ["lookup", "send", "status"]

_MAX_MESSAGE = 60_000

PeerArgument = Annotated[str, typer.Argument(metavar="PEER", help="The PeerId, 56 characters.", show_default=False)]


def lookup(
    peer: PeerArgument,
    profile: ProfileDir = None,
    seed: Seeds = None,
    network: Network = None,
    listen: Listen = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Wait until the nearest nodes agree on the newest.")] = False,
    json: Json = False,
) -> None:
    """Find a peer: its status and addresses."""
    folder = profile or default_profile()
    run(_lookup(PeerIdArgument(peer), folder, seed, network, listen, fresh, Output(as_json=json)))


def send(
    peer: PeerArgument,
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="The message; without it, standard input.", show_default=False),
    ] = None,
    profile: ProfileDir = None,
    seed: Seeds = None,
    network: Network = None,
    listen: Listen = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds to wait for the acknowledgement.")] = 10.0,
    json: Json = False,
) -> None:
    """Send a message, and return when it is in the queue of the other side's app."""
    folder = profile or default_profile()
    run(_send(PeerIdArgument(peer), text, folder, seed, network, listen, timeout, Output(as_json=json)))


def status(profile: ProfileDir = None, json: Json = False) -> None:
    """Show how the running peer or seed of a profile is."""
    run(_status(profile or default_profile(), Output(as_json=json)))


class PeerIdArgument:
    """A PeerId that is parsed inside of `run`, so that a typo is a one-line error like any other."""

    def __init__(self, text: str) -> None:
        self._text = text

    def parse(self) -> PeerId:
        """Raises `PeerIdError`."""
        return PeerId.parse(self._text)


@contextlib.asynccontextmanager
async def _asking(
    folder: Path, seeds: list[str] | None, network: str | None, listen: list[str] | None
) -> AsyncIterator[Any]:
    """Something to `ask`: the running process of the profile, or a peer of our own for as long as it takes."""
    client = await ControlClient.connect(folder)
    if client is not None:
        try:
            yield client.ask
        finally:
            client.close()
        return
    async with Peer.open(
        folder, seeds=seeds or (), network=network, listen=checked_ips(listen), transient=True
    ) as peer:
        yield lambda request: answer(peer, request)


async def _lookup(
    argument: PeerIdArgument,
    folder: Path,
    seeds: list[str] | None,
    network: str | None,
    listen: list[str] | None,
    fresh: bool,
    output: Output,
) -> int:
    who = argument.parse()
    async with _asking(folder, seeds, network, listen) as ask:
        reply = await ask(Lookup(str(who), fresh))
    record = reply["record"]
    if record is None:
        raise PeerUnknown(f"the network knows no peer {who.short}…")
    if record["status"] == "gone":
        raise PeerOffline(f"{who.short}… has said goodbye")
    if output.as_json:
        output.json(reply)
    else:
        where = ", ".join(record["endpoints"]) or "nowhere: it cannot be dialled"
        how = "from our own store" if reply["local"] else f"{reply['requests']} nodes asked"
        output.console.print(f"[green]{escape(record['status'])}[/] at {where}")
        output.console.print(f"[dim]{how}, {reply['elapsed_ms']:.1f} ms[/]")
    return 0


async def _send(
    argument: PeerIdArgument,
    text: str | None,
    folder: Path,
    seeds: list[str] | None,
    network: str | None,
    listen: list[str] | None,
    timeout_s: float,
    output: Output,
) -> int:
    who = argument.parse()
    data = text.encode() if text is not None else sys.stdin.buffer.read(_MAX_MESSAGE + 1)
    if len(data) > _MAX_MESSAGE:
        raise MessageTooLarge(f"a message has at most {_MAX_MESSAGE} bytes")
    async with _asking(folder, seeds, network, listen) as ask:
        reply = await ask(Send(str(who), data, timeout_s))
    if output.as_json:
        output.json({"delivered": True, "peer": str(who), **reply})
    else:
        output.console.print(f"[green]delivered[/] [dim]{reply['elapsed_ms']:.1f} ms[/]")
    return 0


async def _status(folder: Path, output: Output) -> int:
    client = await ControlClient.connect(folder)
    if client is None:
        raise ControlError(f"nothing runs with the profile {folder}")
    try:
        reply = await client.ask(Status())
    finally:
        client.close()
    if output.as_json:
        output.json(reply)
        return 0
    counters = reply.pop("counters")
    for name, value in reply.items():
        output.console.print(f"[bold]{name.replace('_', ' '):22}[/] {escape(str(value))}")
    for name, value in counters.items():
        output.console.print(f"[dim]{name:22} {value}[/]")
    return 0
