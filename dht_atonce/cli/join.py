"""`atonce join`: run a peer and print what happens."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dht_atonce.cli.answers import answer
from dht_atonce.cli.control import serve
from dht_atonce.cli.options import Json, Listen, Network, Port, ProfileDir, Seeds, UdpPort, default_profile
from dht_atonce.cli.output import Output, escape
from dht_atonce.cli.running import run
from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import parse_address
from dht_atonce.listening import ANYWHERE
from dht_atonce.peer import Peer

__all__ = ["checked_ips", "join"]


def join(
    profile: ProfileDir = None,
    seed: Seeds = None,
    network: Network = None,
    listen: Listen = None,
    port: Port = 0,
    udp_port: UdpPort = 0,
    keep_trying: Annotated[bool, typer.Option(help="Go on trying if nobody answers.")] = False,
    alone: Annotated[bool, typer.Option(help="Begin a network if there is no other way in.")] = False,
    k: Annotated[int, typer.Option("--k", min=1, max=64, help="With --alone: replicas of a record.")] = 20,
    local: Annotated[bool, typer.Option(help="With --alone: a network on one machine or LAN.")] = False,
    json: Json = False,
) -> None:
    """Run a peer: be found, print messages as they come. Ctrl-C says goodbye and ends."""
    chosen: NetworkConfig | str | None = network
    if alone:
        chosen = NetworkConfig(name=network or "atonce", k=k, local=local)
    run(
        _join(
            profile or default_profile(), seed, chosen, listen, port, udp_port, keep_trying, alone, Output(as_json=json)
        )
    )


async def _join(
    folder: Path,
    seeds: list[str] | None,
    network: NetworkConfig | str | None,
    listen: list[str] | None,
    port: int,
    udp_port: int,
    keep_trying: bool,
    alone: bool,
    output: Output,
) -> int:
    began = time.perf_counter()

    def on_event(event: str, details: dict[str, Any]) -> None:
        details["elapsed_ms"] = round((time.perf_counter() - began) * 1000, 1)
        output.event(event, details, lambda details: _in_words(event, details))

    async with (
        Peer.open(
            folder,
            seeds=seeds or (),
            network=network,
            listen=checked_ips(listen),
            port=port,
            udp_port=udp_port,
            alone=alone,
            keep_trying=keep_trying,
            on_event=on_event,
        ) as peer,
        serve(folder, lambda request: answer(peer, request)),
    ):
        output.event("ready", {"peer": str(peer.id)}, lambda _: f"[bold]this peer is[/] [cyan]{peer.id}[/]")
        async for message in peer.messages():
            details = {"sender": str(message.sender), "data": message.data}
            output.event("message", details, _message_in_words)
    return 0


def checked_ips(listen: list[str] | None) -> tuple[str, ...]:
    """The addresses to bind. Raises `EndpointError`."""
    return tuple(parse_address(ip, default_port=0).ip for ip in listen) if listen else ANYWHERE


def _message_in_words(details: dict[str, Any]) -> str:
    return f"[cyan]{details['sender'][:8]}…[/] {escape(details['data'].decode(errors='replace'))}"


def _in_words(event: str, details: dict[str, Any]) -> str | None:
    match event:
        case "listening":
            return f"[dim]listening: UDP {', '.join(details['udp'])}, TCP {', '.join(details['tcp'])}[/]"
        case "entered":
            tried = "".join(f"\n[yellow]  {escape(line)}[/]" for line in details["tried"])
            return f"[green]in the network[/] by {details['way']}: {details['answered']} nodes answered{tried}"
        case "published":
            return f"[dim]published: {details['confirmed']} of {details['asked']} nodes confirmed[/]"
        case "first_contact":
            return f"[dim]first live contact; {details['known']} nodes known[/]"
        case "still_alone" | "warning" | "identity_in_use":
            return f"[yellow]{escape(details['message'])}[/]"
    return None
