"""Options that several commands share, and what they mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dht_atonce.config import NetworkConfig
from dht_atonce.endpoints import MIN_PORT, parse_address
from dht_atonce.errors import AtOnceError, EndpointError, EntryFailed, ProfileError
from dht_atonce.listening import ANYWHERE

__all__ = [
    "Json",
    "Listen",
    "NetworkName",
    "Port",
    "ProfileDir",
    "Seeds",
    "UdpPort",
    "check_way_in",
    "checked_ips",
    "checked_network",
    "checked_port",
    "existing",
    "folder_of",
]


def folder_of(profile: Path | None, kind: str = "peer") -> Path:
    """The profile's folder: the one that was named, else the default one of this kind."""
    if profile is not None:
        return profile.expanduser()  # a shell leaves the ~ of --profile=~/alice to us
    import platformdirs

    return Path(platformdirs.user_data_dir("atonce", appauthor=False)) / kind


def existing(folder: Path) -> Path:
    """`folder`, if it is a profile. Raises `ProfileError`."""
    if not _holds(folder, "identity.key"):
        raise ProfileError(f"there is no profile in {folder}; make one with: atonce id new --profile {folder}")
    return folder


def check_way_in(folder: Path, seeds: Sequence[str] | None) -> None:
    """Without a seed, this profile must have been in a network before. Raises `EntryFailed`, and makes no profile."""
    if not seeds and not _holds(folder, "state"):
        raise EntryFailed(f"the profile {folder} has not been in a network yet; name a seed with --seed URL")


def _holds(folder: Path, name: str) -> bool:
    try:
        return (folder / name).exists()
    except OSError as error:
        raise ProfileError(f"the profile folder {folder} cannot be used: {error.strerror}") from None


def checked_network(name: str | None) -> str | None:
    """A network's name, as the user wrote it."""
    try:
        return None if name is None else NetworkConfig(name=name).name
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def checked_ips(listen: list[str] | None) -> tuple[str, ...]:
    """The addresses to bind. Raises `EndpointError`."""
    if not listen:
        return ANYWHERE
    addresses = []
    for text in listen:
        try:
            addresses.append(parse_address(text, default_port=0))
        except EndpointError:
            raise EndpointError(f"--listen takes an IP address of this machine, and {text[:80]!r} is none") from None
        if addresses[-1].port:
            raise EndpointError("--listen takes an address only; the ports go to --port and --udp-port")
    if len({address.family for address in addresses}) < len(addresses):
        raise EndpointError("--listen takes one address of each family; leave it out to listen at all")
    return tuple(address.ip for address in addresses)


def checked_port(port: int, option: str) -> int:
    """A port at which others may look for us."""
    if 0 < port < MIN_PORT:
        raise AtOnceError(f"nobody would contact a peer at a port below {MIN_PORT}; choose another {option}")
    return port


ProfileDir = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        metavar="DIR",
        help="Folder with the identity and saved contacts, made if new. Default: atonce/peer (or atonce/seed) in your "
        "data folder.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, for programs; bytes in base64.")]
Seeds = Annotated[
    list[str] | None,
    typer.Option("--seed", metavar="URL", help="A seed's URL, atonce://PEERID@HOST:PORT. May be given more than once."),
]
NetworkName = Annotated[
    str | None,
    typer.Option("--network", metavar="NAME", help="The network's name. Default: the last run's, or the seed's."),
]
Listen = Annotated[
    list[str] | None,
    typer.Option(
        "--listen",
        metavar="IP",
        help="Bind to this address; may be given twice, for IPv4 and IPv6. Default: all addresses.",
    ),
]
Port = Annotated[
    int,
    typer.Option(
        "--port",
        metavar="PORT",
        min=0,
        max=65535,
        show_default=False,
        help="TCP port for links. Default: that of the last run, or any.",
    ),
]
UdpPort = Annotated[
    int,
    typer.Option(
        "--udp-port",
        metavar="PORT",
        min=0,
        max=65535,
        show_default=False,
        help="UDP port of the DHT. Default: that of the last run, or any.",
    ),
]
