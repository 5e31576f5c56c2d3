"""`atonce seed`: run a seed server."""

import asyncio
import ipaddress
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from atonce_seed.server import SeedServer
from dht_atonce.cli.control import Request, Status, serve
from dht_atonce.cli.live import LiveOutput
from dht_atonce.cli.options import Json, Listen, Port, ProfileDir, UdpPort, checked_ips, folder_of
from dht_atonce.cli.output import count, escape
from dht_atonce.cli.running import run
from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import Family, is_local
from dht_atonce.errors import ControlError, EndpointError
from dht_atonce.listening import ANYWHERE

__all__ = ["seed"]

_DEFAULT = NetworkConfig()
_ELSEWHERE = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8::1"}
"""Addresses in documentation ranges (RFC 5737, RFC 3849): outside of this machine, and nobody's."""


def seed(
    profile: ProfileDir = None,
    network: Annotated[str, typer.Option(metavar="NAME", help="The network that this seed serves.")] = _DEFAULT.name,
    k: Annotated[
        int, typer.Option("--k", metavar="K", min=1, max=64, help="Copies of each record, in the whole network.")
    ] = _DEFAULT.k,
    local: Annotated[
        bool, typer.Option("--local", help="A network on one machine or LAN: private addresses are accepted.")
    ] = False,
    record_life: Annotated[
        int,
        typer.Option(min=60, max=604800, metavar="SECONDS", help="How long a crashed peer is still found."),
    ] = _DEFAULT.record_life_s,
    public_host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Name or address under which newcomers reach this seed, for its URL."),
    ] = None,
    listen: Listen = None,
    port: Port = 0,
    udp_port: UdpPort = 0,
    json: Json = False,
) -> None:
    """Run a seed: it lets newcomers find their first contacts. Prints its URL."""
    try:
        config = NetworkConfig(name=network, k=k, local=local, record_life_s=record_life)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    ips = checked_ips(listen)
    if not local and all(ipaddress.ip_address(ip).is_loopback for ip in ips):
        raise EndpointError(f"peers would refuse a seed at {ips[0]}: for a network on this machine alone add --local")
    if public_host is not None:
        public_host = _checked_host(public_host)
    run(_seed(folder_of(profile, "seed"), config, public_host, ips, port, udp_port, json), until_signal=True)


async def _seed(
    folder: Path,
    network: NetworkConfig,
    public_host: str | None,
    listen: tuple[str, ...],
    port: int,
    udp_port: int,
    as_json: bool,
) -> int:
    def on_event(event: str, details: dict[str, Any]) -> None:
        output.event(event, details, lambda details: _in_words(event, details))

    async with (
        LiveOutput(as_json=as_json) as output,
        await SeedServer.open(
            folder, network=network, listen=listen, port=port, udp_port=udp_port, on_event=on_event
        ) as server,
    ):
        host = public_host or _reachable_host(server.address.ip)
        url = str(server.url(host))

        async def answer(request: Request) -> dict[str, Any]:
            if not isinstance(request, Status):
                raise ControlError("this is a seed: it takes no part in the network; use a peer's profile")
            return {"url": url, **server.status()}

        async with serve(folder, answer):
            details = {
                "url": url,
                "tcp": str(server.address),
                "udp": [str(address) for address in server.node.addresses],
                "profile": str(folder),
            }
            name = f"[bold]seed of the network[/] {escape(network.name)}, k = {network.k}"
            hint = f"[dim]profile {escape(str(folder))}; newcomers need this URL, Ctrl-C ends[/]"
            output.event("seed", details, lambda _: f"{name}\n[cyan]{escape(url)}[/]\n{hint}")
            if public_host is None and not network.local and is_local(host):
                warning = f"{host} is a private address: add --public-host, or --local for one machine or LAN"
                on_event("warning", {"message": warning})
            await asyncio.Event().wait()
    return 0


def _checked_host(host: str) -> str:
    """`host`, if it can stand in a URL. Raises `EndpointError`."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if not bare or not set(bare).isdisjoint(":/?#@[] \t\n\r"):
            raise EndpointError(
                f"--public-host takes a name or an address, without a port, and {host[:80]!r} is neither"
            ) from None
        return host


def _reachable_host(bound: str) -> str:
    """What to put into the URL: the bound address or, bound to all, the one that packets to the outside would have."""
    if bound not in ANYWHERE:
        return bound
    family = Family.IPV6 if ":" in bound else Family.IPV4
    try:
        with socket.socket(socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((_ELSEWHERE[family], 9))  # connecting UDP sends nothing
            return str(probe.getsockname()[0])
    except OSError:
        return "::1" if family is Family.IPV6 else "127.0.0.1"


def _in_words(event: str, details: dict[str, Any]) -> str | None:
    match event:
        case "admitted":
            peer, listed = details["peer"][:8], count(details["listed"], "node")
            return f"[green]admitted[/] {peer}… with {count(details['contacts'], 'contact')}; {listed} listed"
        case "rejected":
            return f"[yellow]rejected[/] {details['address']}: {escape(details['reason'])}"
        case "warning":
            return f"[yellow]{escape(details['message'])}[/]"
    return None
