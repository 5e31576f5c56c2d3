"""`atonce join`: run a peer and print what happens."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from dht_atonce.cli.answers import answer
from dht_atonce.cli.control import serve
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
from dht_atonce.cli.rooms import RoomKeeper
from dht_atonce.cli.running import run
from dht_atonce.config import NetworkConfig
from dht_atonce.errors import TransferFailed
from dht_atonce.identity import PeerId
from dht_atonce.peer import Peer

__all__ = ["join"]


def join(
    profile: ProfileDir = None,
    seed: Seeds = None,
    network: NetworkName = None,
    listen: Listen = None,
    port: Port = 0,
    udp_port: UdpPort = 0,
    keep_trying: Annotated[bool, typer.Option("--keep-trying", help="Go on trying if nobody answers.")] = False,
    alone: Annotated[bool, typer.Option("--alone", help="Begin a network if there is no other way in.")] = False,
    contacts_only: Annotated[
        bool, typer.Option("--contacts-only", help="Refuse whoever is none of: atonce contacts list.")
    ] = False,
    k: Annotated[
        int | None,
        typer.Option("--k", metavar="K", min=1, max=64, help="With --alone: copies of each record. Default: 20."),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="With --alone: a network on one machine or LAN.")] = False,
    receive: Annotated[
        Path | None, typer.Option("--receive", metavar="DIR", help="Take files that others push, into this folder.")
    ] = None,
    serve_folder: Annotated[
        Path | None, typer.Option("--serve", metavar="DIR", help="Give the files in this folder to whoever pulls them.")
    ] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="PEERID", help="Files go to and from these peers only. May be repeated."),
    ] = None,
    max_size: Annotated[
        int, typer.Option("--max-size", metavar="MB", min=1, help="Take no larger file. Default: 1024.")
    ] = 1024,
    json: Json = False,
) -> None:
    """Run a peer: be found, print messages as they come. Ctrl-C says goodbye and ends.

    The first time, name a seed. Afterwards the profile knows peers to come back by.
    """
    folder = folder_of(profile)
    chosen: NetworkConfig | str | None = checked_network(network)
    if alone:
        begun = NetworkConfig(local=local)
        chosen = replace(begun, name=network or begun.name, k=k or begun.k)
    else:
        if k is not None or local:
            raise typer.BadParameter("--k and --local go with --alone; of a network that there is, its seed tells them")
        check_way_in(folder, seed)
    ports = checked_port(port, "--port"), checked_port(udp_port, "--udp-port")
    files = _Files(_folder(receive, "--receive"), _folder(serve_folder, "--serve"), _ids(accept), max_size << 20)
    main = _join(folder, seed, chosen, checked_ips(listen), ports, keep_trying, alone, contacts_only, json, files)
    run(main, until_signal=True)


async def _join(
    folder: Path,
    seeds: list[str] | None,
    network: NetworkConfig | str | None,
    listen: tuple[str, ...],
    ports: tuple[int, int],
    keep_trying: bool,
    alone: bool,
    contacts_only: bool,
    as_json: bool,
    files: "_Files",
) -> int:
    began = time.perf_counter()
    in_words = _Words(alone)

    def on_event(event: str, details: dict[str, Any]) -> None:
        details["elapsed_ms"] = round((time.perf_counter() - began) * 1000, 1)
        output.event(event, details, in_words.of(event))

    async with LiveOutput(as_json=as_json) as output:
        opening = Peer.open(
            folder,
            seeds=seeds or (),
            network=network,
            listen=listen,
            port=ports[0],
            udp_port=ports[1],
            alone=alone,
            keep_trying=keep_trying,
            accept="contacts" if contacts_only else None,
            on_event=on_event,
        )
        async with opening as peer:
            if files.receive is not None or files.serve is not None:
                peer.serve_files(
                    receive=files.receive,
                    serve=files.serve,
                    accept=files.accept,
                    max_bytes=files.max_bytes,
                    on_event=lambda event: on_event("file", {**asdict(event), "peer": str(event.peer)}),
                )
            try:
                async with RoomKeeper(peer) as rooms, serve(folder, lambda request: answer(peer, rooms, request)):
                    on_event("ready", {"peer": str(peer.id), "profile": str(folder)})
                    async for message in peer.messages():
                        details = {"sender": str(message.sender), "data": message.data}
                        output.event("message", details, in_words.of("message"))
                        await output.room()
            finally:
                on_event("leaving", {"peer": str(peer.id)})
    return 0


class _Files(NamedTuple):
    """Which files are taken and given."""

    receive: Path | None
    serve: Path | None
    accept: list[PeerId] | None
    max_bytes: int


def _folder(path: Path | None, option: str) -> Path | None:
    if path is not None and not path.expanduser().is_dir():
        raise TransferFailed(f"{option} takes a folder, and {path} is none")
    return path.expanduser() if path is not None else None


def _ids(texts: list[str] | None) -> list[PeerId] | None:
    return [PeerId.parse(text) for text in texts] if texts else None


class _Words:
    """Tells people what happens to their peer."""

    def __init__(self, begins: bool) -> None:
        self._begins = begins
        self._alone = False

    def of(self, event: str) -> Callable[[dict[str, Any]], str | None]:
        """The words for an event of this name; for one that people need not know, none."""
        words: Callable[[dict[str, Any]], str | None] | None = getattr(self, f"_{event}", None)
        return words or (lambda _: None)

    def _listening(self, details: dict[str, Any]) -> str:
        return f"[dim]listening: UDP {', '.join(details['udp'])}, TCP {', '.join(details['tcp'])}[/]"

    def _entered(self, details: dict[str, Any]) -> str | None:
        tried = "".join(f"\n[yellow]  before that: {escape(line)}[/]" for line in details["tried"])
        was_alone, self._alone = self._alone, not details["answered"]
        if self._alone:
            if was_alone:
                return None
            return f"[green]in the network[/], and the first one here: the seed will tell others of this peer{tried}"
        return f"[green]in the network[/] by {details['way']}: {count(details['answered'], 'node')} answered{tried}"

    def _published(self, details: dict[str, Any]) -> str | None:
        if not details["asked"]:
            return None
        return f"[dim]published: {details['confirmed']} of {count(details['asked'], 'node')} confirmed[/]"

    def _first_contact(self, details: dict[str, Any]) -> str | None:
        return f"[green]not alone any more[/]: {count(details['known'], 'node')} known" if self._alone else None

    def _still_alone(self, details: dict[str, Any]) -> str | None:
        again_s = details.get("again_s")
        if again_s is not None:
            if self._begins:
                return None
            return f"[yellow]still alone: {escape(details['message'])}; again in about {again_s} s[/]"
        if self._begins:
            self._alone = True
            return "[yellow]nobody else is here: this peer begins the network[/]"
        return f"[yellow]{escape(details['message'])}; trying again[/]"

    def _warning(self, details: dict[str, Any]) -> str:
        return f"[yellow]{escape(details['message'])}[/]"

    _identity_in_use = _warning

    def _ready(self, details: dict[str, Any]) -> str:
        return (
            f"[bold]this peer is[/] [cyan]{details['peer']}[/]\n"
            f"[dim]profile {escape(details['profile'])}; messages appear below, Ctrl-C says goodbye and ends[/]"
        )

    def _file(self, details: dict[str, Any]) -> str:
        way = "from" if details["pushed"] else "to"
        name, peer = escape(details["name"]) or "a file", details["peer"][:8]
        if details["error"]:
            return f"[yellow]{name} {way} {peer}…: {escape(details['error'])}[/]"
        return f"[green]{name}[/] {way} [cyan]{peer}…[/] [dim]{details['size']} bytes[/]"

    def _leaving(self, details: dict[str, Any]) -> str:
        return "[dim]saying goodbye[/]"

    def _message(self, details: dict[str, Any]) -> str:
        # Each line on its own, and marked: no message can look like anything but a message.
        first, *more = details["data"].decode(errors="replace").splitlines() or [""]
        lines = [f"[cyan]{details['sender'][:8]}…[/] {escape(first)}", *(f"{' ' * 9} {escape(line)}" for line in more)]
        return "\n".join(lines)
