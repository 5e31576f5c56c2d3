"""Options that several commands share, and what they mean."""

from pathlib import Path
from typing import Annotated

import typer

from dht_atonce.errors import ProfileError

__all__ = ["Json", "Listen", "Network", "Port", "ProfileDir", "Seeds", "UdpPort", "default_profile"]


def default_profile(kind: str = "peer") -> Path:
    """Where a profile is kept if none is named."""
    import platformdirs

    return Path(platformdirs.user_data_dir("atonce", appauthor=False)) / kind


def existing(folder: Path) -> Path:
    """`folder`, if it is a profile. Raises `ProfileError`."""
    if not (folder / "identity.key").exists():
        raise ProfileError(f"there is no profile in {folder}; make one with: atonce id new --profile {folder}")
    return folder


ProfileDir = Annotated[
    Path | None,
    typer.Option(
        "--profile", metavar="DIR", help="Folder of the profile: identity, saved contacts.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, for programs.")]
Seeds = Annotated[
    list[str] | None,
    typer.Option("--seed", metavar="URL", help="A seed's URL, atonce://PEERID@HOST:PORT. May be given more than once."),
]
Network = Annotated[
    str | None,
    typer.Option("--network", metavar="NAME", help="The network's name. Default: the last run's, or the seed's."),
]
Listen = Annotated[
    list[str] | None,
    typer.Option(
        "--listen", metavar="IP", help="Bind to this address; one for each family. Default: all, both families."
    ),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="TCP port for links; 0: the last run's, or any.")]
UdpPort = Annotated[
    int, typer.Option("--udp-port", min=0, max=65535, help="UDP port of the DHT; 0: the last run's, or any.")
]
