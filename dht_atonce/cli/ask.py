"""`atonce lookup`, `atonce send`, `atonce notify`, `atonce status`: short-lived commands.

They use the running process of the profile if there is one, and else take part for a moment themselves: without a seat,
and without publishing anything.
"""

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from dht_atonce.cli.answers import answer
from dht_atonce.cli.control import ControlClient, Lookup, Notify, Send, Status
from dht_atonce.cli.options import (
    Json,
    Listen,
    NetworkName,
    ProfileDir,
    Seeds,
    check_way_in,
    checked_ips,
    checked_network,
    folder_of,
)
from dht_atonce.cli.output import Output, count, escape
from dht_atonce.cli.rooms import RoomKeeper
from dht_atonce.cli.running import run
from dht_atonce.config import MessagingConfig, RoomsConfig
from dht_atonce.errors import AtOnceError, ControlError, MessageTooLarge, PeerOffline, PeerUnknown
from dht_atonce.identity import PeerId
from dht_atonce.peer import Peer

__all__ = ["PeerArgument", "TopicArgument", "asking", "lookup", "notify", "send", "status"]

_MOST = MessagingConfig().max_message_bytes

_MOST_SHOUTED = RoomsConfig().max_shout_bytes

TopicArgument = Annotated[
    str, typer.Argument(metavar="TOPIC", help="The room's name, 1 to 64 characters.", show_default=False)
]
PeerArgument = Annotated[str, typer.Argument(metavar="PEERID", help="Who: 56 characters.", show_default=False)]


def lookup(
    peer: PeerArgument,
    profile: ProfileDir = None,
    seed: Seeds = None,
    network: NetworkName = None,
    listen: Listen = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Wait until the nearest nodes agree on the newest.")] = False,
    json: Json = False,
) -> None:
    """Find a peer: its status and addresses.

    Uses the running peer of the profile; if there is none, takes part for a moment.
    """
    who = PeerId.parse(peer)
    ask_of = asking(folder_of(profile), seed, network, listen)
    run(_lookup(who, ask_of, fresh, Output(as_json=json)))


def send(
    peer: PeerArgument,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="The message. Without it, standard input to its end.", show_default=False),
    ] = None,
    profile: ProfileDir = None,
    seed: Seeds = None,
    network: NetworkName = None,
    listen: Listen = None,
    timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.1, max=3600, help="How long to wait for the acknowledgement."),
    ] = 10.0,
    json: Json = False,
) -> None:
    """Send a message of at most 60,000 bytes; returns when it is in the queue of the other side's app.

    Uses the running peer of the profile; if there is none, takes part for a moment.
    """
    who = PeerId.parse(peer)
    ask_of = asking(folder_of(profile), seed, network, listen)
    # Before the loop runs: reading would block it, and with it Ctrl-C.
    data = _standard_input() if text is None else text.encode(errors="surrogateescape")
    if len(data) > _MOST:
        raise MessageTooLarge(f"a message has at most {_MOST} bytes; send it in parts")
    run(_send(who, data, ask_of, timeout, Output(as_json=json)))


def notify(
    topic: TopicArgument,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="What to say. Without it, standard input to its end.", show_default=False),
    ] = None,
    profile: ProfileDir = None,
    seed: Seeds = None,
    network: NetworkName = None,
    listen: Listen = None,
    json: Json = False,
) -> None:
    """Say something, at most 59,000 bytes, to everybody in the room TOPIC.

    Uses the running peer of the profile; if there is none, takes part for a moment. Fails if nobody is in the room.
    """
    _check_topic(topic)
    ask_of = asking(folder_of(profile), seed, network, listen)
    data = _standard_input() if text is None else text.encode(errors="surrogateescape")
    if len(data) > _MOST_SHOUTED:
        raise MessageTooLarge(f"a notification has at most {_MOST_SHOUTED} bytes; send it in parts")
    run(_notify(topic, data, ask_of, Output(as_json=json)))


def status(profile: ProfileDir = None, json: Json = False) -> None:
    """Show how the running peer or seed of a profile is."""
    # Without a profile, whichever of the two default ones is in use.
    folders = [folder_of(profile)] if profile is not None else [folder_of(None), folder_of(None, "seed")]
    run(_status(folders, Output(as_json=json)))


def _check_topic(topic: str) -> None:
    if not 1 <= len(topic) <= 64:
        raise typer.BadParameter(f"a room's name has 1 to 64 characters, this has {len(topic)}")


def _standard_input() -> bytes:
    """What there is to send; one byte more than a message may have tells that it is too large."""
    if sys.stdin.isatty():
        print("type the message, then Ctrl-D", file=sys.stderr)
    data = b""
    try:
        while len(data) <= _MOST and (more := os.read(sys.stdin.fileno(), _MOST + 1 - len(data))):
            data += more
    except OSError as error:
        raise AtOnceError(f"standard input cannot be read: {error.strerror}; give the message as TEXT") from None
    return data


@contextlib.asynccontextmanager
async def asking(
    folder: Path, seeds: list[str] | None, network: str | None, listen: list[str] | None
) -> AsyncIterator[Any]:
    """Something to `ask`: the running process of the profile, or a peer of our own for as long as it takes."""
    ips, network = checked_ips(listen), checked_network(network)
    client = await ControlClient.connect(folder)
    if client is not None:
        try:
            yield client.ask
        finally:
            client.close()
        return
    check_way_in(folder, seeds)
    async with (
        Peer.open(folder, seeds=seeds or (), network=network, listen=ips, transient=True) as peer,
        RoomKeeper(peer) as rooms,
    ):
        yield lambda request: answer(peer, rooms, request)


async def _lookup(who: PeerId, ask_of: contextlib.AbstractAsyncContextManager[Any], fresh: bool, output: Output) -> int:
    async with ask_of as ask:
        reply = await ask(Lookup(str(who), fresh))
    record = reply["record"]
    if record is None:
        raise PeerUnknown(f"the network knows no peer {who.short}…")
    if record["status"] == "gone":
        raise PeerOffline(f"{who.short}… has said goodbye")
    if output.as_json:
        output.json(reply)
        return 0
    where = ", ".join(record["endpoints"]) or "no address: it cannot be dialled"
    how = "from our own store" if reply["local"] else f"{count(reply['requests'], 'node')} asked"
    output.console.print(
        f"[green]{escape(record['status'])}[/] at {where}\n[dim]{how}, {reply['elapsed_ms']:.1f} ms[/]"
    )
    return 0


async def _send(
    who: PeerId,
    data: bytes,
    ask_of: contextlib.AbstractAsyncContextManager[Any],
    timeout_s: float,
    output: Output,
) -> int:
    async with ask_of as ask:
        reply = await ask(Send(str(who), data, timeout_s))
    if output.as_json:
        output.json({"delivered": True, "peer": str(who), **reply})
    else:
        output.console.print(f"[green]delivered[/] to {who.short}… [dim]in {reply['elapsed_ms']:.1f} ms[/]")
    return 0


async def _notify(topic: str, data: bytes, ask_of: contextlib.AbstractAsyncContextManager[Any], output: Output) -> int:
    async with ask_of as ask:
        reply = await ask(Notify(topic, data))
    if output.as_json:
        output.json({"notified": True, "topic": topic, **reply})
    else:
        members = count(reply["members"], "member")
        output.console.print(f"[green]said[/] to {members} of {escape(topic)} [dim]in {reply['elapsed_ms']:.1f} ms[/]")
    return 0


async def _status(folders: list[Path], output: Output) -> int:
    for folder in folders:
        client = await ControlClient.connect(folder)
        if client is not None:
            break
    else:
        names = " or ".join(str(folder) for folder in folders)
        raise ControlError(f"nothing runs with the profile {names}, or it is not in yet; see: atonce join --help")
    try:
        reply = await client.ask(Status())
    finally:
        client.close()
    if output.as_json:
        output.json(reply)
        return 0
    counters = reply.pop("counters")
    lines = []
    for name, value in {**reply, "profile": str(folder)}.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)
        lines.append(f"[bold]{name.replace('_', ' '):22}[/] {escape(shown)}")
    lines.append("[dim]what it counted:[/]")
    lines += [f"[dim]  {name:24} {number}[/]" for name, number in counters.items()]
    output.console.print("\n".join(lines))  # at once, so that `| head` finds no fault with it
    return 0
