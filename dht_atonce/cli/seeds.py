"""`atonce seed`: run a seed server."""

import asyncio
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from atonce_seed.server import SeedServer
from dht_atonce.cli.control import Request, Status, serve
from dht_atonce.cli.join import checked_ips
from dht_atonce.cli.options import Json, Listen, Port, ProfileDir, UdpPort, default_profile
from dht_atonce.cli.output import Output, escape
from dht_atonce.cli.running import run
from dht_atonce.config import NetworkConfig
from dht_atonce.errors import ControlError
from dht_atonce.listening import ANYWHERE

__all__ = ["seed"]


def seed(
    profile: ProfileDir = None,
    network: Annotated[str, typer.Option(metavar="NAME", help="The network that this seed serves.")] = "atonce",
    k: Annotated[int, typer.Option("--k", min=1, max=64, help="Replicas of a record, in the whole network.")] = 20,
    local: Annotated[
        bool, typer.Option("--local", help="A network on one machine or LAN: private addresses are accepted.")
    ] = False,
    record_life: Annotated[
        int, typer.Option(min=60, max=604800, metavar="SECONDS", help="How long a presence record lives.")
    ] = 7200,
    public_host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Name or address under which newcomers reach this seed.")
    ] = None,
    listen: Listen = None,
    port: Port = 0,
    udp_port: UdpPort = 0,
    json: Json = False,
) -> None:
    """Run a seed server: it lets newcomers find their first contacts. Prints its URL."""
    try:
        config = NetworkConfig(name=network, k=k, local=local, record_life_s=record_life)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    folder = profile or default_profile("seed")
    run(_seed(folder, config, public_host, listen, port, udp_port, Output(as_json=json)))


async def _seed(
    folder: Path,
    network: NetworkConfig,
    public_host: str | None,
    listen: list[str] | None,
    port: int,
    udp_port: int,
    output: Output,
) -> int:
    def on_event(event: str, details: dict[str, Any]) -> None:
        output.event(event, details, lambda details: _in_words(event, details))

    async with await SeedServer.open(
        folder, network=network, listen=checked_ips(listen), port=port, udp_port=udp_port, on_event=on_event
    ) as server:

        async def answer(request: Request) -> dict[str, Any]:
            if not isinstance(request, Status):
                raise ControlError("this is a seed: it takes no part in the network; use a peer's profile")
            return server.status()

        async with serve(folder, answer):
            url = str(server.url(public_host or _reachable_host(server.address.ip)))
            udp = [str(address) for address in server.node.addresses]

            def words(details: dict[str, Any]) -> str:
                return f"[bold]seed of the network[/] {escape(network.name)}, k = {network.k}\n[cyan]{url}[/]"

            output.event("seed", {"url": url, "tcp": str(server.address), "udp": udp}, words)
            await asyncio.Event().wait()
    return 0


def _reachable_host(bound: str) -> str:
    """What to put into the URL: the bound address or, bound to all, the one that packets to the outside would have."""
    if bound not in ANYWHERE:
        return bound
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737); connecting UDP sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _in_words(event: str, details: dict[str, Any]) -> str | None:
    match event:
        case "admitted":
            peer, contacts, listed = details["peer"][:8], details["contacts"], details["listed"]
            return f"[green]admitted[/] {peer}… with {contacts} contacts; {listed} nodes listed"
        case "rejected":
            return f"[yellow]rejected[/] {details['address']}: {details['reason']}"
        case "warning":
            return f"[yellow]{escape(details['message'])}[/]"
    return None
