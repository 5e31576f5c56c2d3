"""`atonce listen`: hear what is said in a room, and run a command for each message."""

import contextlib
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any

import typer

from dht_atonce.cli.ask import TopicArgument
from dht_atonce.cli.commands import Commands, parsed
from dht_atonce.cli.control import ControlClient, Hear
from dht_atonce.cli.live import LiveOutput
from dht_atonce.cli.options import (
    Json,
    Listen,
    NetworkName,
    Port,
    ProfileDir,
    Seeds,
    UdpPort,
    check_way_in,
    checked_ips,
    checked_network,
    checked_port,
    folder_of,
)
from dht_atonce.cli.output import count, escape
from dht_atonce.cli.rooms import describe
from dht_atonce.cli.running import run
from dht_atonce.peer import Peer

__all__ = ["listen"]


def listen(
    topic: TopicArgument,
    command: Annotated[
        str | None,
        typer.Option(
            "--exec",
            metavar="CMD",
            help="Run this for each message, without a shell: the message is its standard input, the sender is in "
            "ATONCE_SENDER.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", metavar="N", min=1, max=256, help="So many commands at once, at most.")
    ] = 4,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, max=86_400, help="A command that takes longer is ended.")
    ] = 60.0,
    last: Annotated[
        int, typer.Option("--last", metavar="N", min=0, max=256, help="First show so many of the latest messages.")
    ] = 0,
    profile: ProfileDir = None,
    seed: Seeds = None,
    network: NetworkName = None,
    listen: Listen = None,
    port: Port = 0,
    udp_port: UdpPort = 0,
    json: Json = False,
) -> None:
    """Hear what is said in the room TOPIC. Ctrl-C ends.

    Uses the running peer of the profile; if there is none, runs one. Commands are run for what is said from now on.
    """
    if not 1 <= len(topic) <= 64:
        raise typer.BadParameter(f"a room's name has 1 to 64 characters, this has {len(topic)}")
    words = parsed(command) if command is not None else None
    folder = folder_of(profile)
    options: dict[str, Any] = {"seeds": seed or (), "network": checked_network(network), "listen": checked_ips(listen)}
    options |= {"port": checked_port(port, "--port"), "udp_port": checked_port(udp_port, "--udp-port")}
    run(_listen(topic, words, jobs, timeout, last, folder, options, json), until_signal=True)


async def _listen(
    topic: str,
    words: list[str] | None,
    jobs: int,
    timeout_s: float,
    last: int,
    folder: Path,
    options: dict[str, Any],
    as_json: bool,
) -> int:
    async with LiveOutput(as_json=as_json) as output:

        def on_end(details: dict[str, Any]) -> None:
            output.event("ran", details, _ran)

        commands = Commands(words or [], topic, jobs, timeout_s, on_end, is_quiet=as_json)
        try:
            async with contextlib.aclosing(_events(topic, last, folder, options)) as events:
                async for event in events:
                    name = event.pop("event")
                    output.event(name, event, _WORDS.get(name, lambda _: None))
                    await output.room()
                    if name == "said" and words is not None and not event["past"]:
                        await commands.start(event["sender"], event["seq"], event["data"])
        finally:
            await commands.aclose()
    return 0


async def _events(topic: str, last: int, folder: Path, options: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """What happens in the room, as the running process of the profile tells it, or a peer of our own."""
    client = await ControlClient.connect(folder)
    if client is not None:
        name = secrets.token_hex(16)
        try:
            answer = await client.ask(Hear(topic, name, last, waits=False))
            yield {"event": "listening_to", "topic": topic, "through": "running"}
            while True:
                for event in answer["events"]:
                    yield _decoded(event)
                answer = await client.ask(Hear(topic, name, last))
        finally:
            client.close()
    check_way_in(folder, options["seeds"])
    async with Peer.open(folder, **options) as peer, peer.join(topic, last=last) as room:
        yield {"event": "listening_to", "topic": topic, "through": "own"}
        async for happened in room.events():
            yield describe(happened)


def _decoded(event: dict[str, Any]) -> dict[str, Any]:
    """An event as it was before it went through JSON."""
    if "data" in event:
        import base64

        event["data"] = base64.b64decode(event["data"])
    return event


# --- words ---


def _said(details: dict[str, Any]) -> str:
    # Each line on its own, and marked: no message can look like anything but a message.
    first, *more = details["data"].decode(errors="replace").splitlines() or [""]
    lines = [f"[cyan]{details['sender'][:8]}…[/] {escape(first)}", *(f"{' ' * 9} {escape(line)}" for line in more)]
    return "\n".join(lines)


def _ran(details: dict[str, Any]) -> str | None:
    who = f"for {details['sender'][:8]}… number {details['seq']}"
    if "problem" in details:
        return f"[yellow]the command {who}: {escape(details['problem'])}[/]"
    return f"[yellow]the command {who} ended with {details['code']}[/]" if details["code"] else None


_WORDS: dict[str, Any] = {
    "listening_to": lambda details: f"[dim]listening to {escape(details['topic'])}; Ctrl-C ends[/]",
    "said": _said,
    "entered": lambda details: f"[dim]{details['peer'][:8]}… {escape(details['name'])} is here[/]",
    "left": lambda details: f"[dim]{details['peer'][:8]}… has gone ({escape(details['reason'])})[/]",
    "missed": lambda details: f"[yellow]{count(details['count'], 'message')} of {details['peer'][:8]}… missed[/]",
    "left_out": lambda details: f"[yellow]{count(details['events'], 'event')} left out: not read in time[/]",
}
