"""`atonce id`: make and show identities."""

import random
from pathlib import Path

import typer

from dht_atonce.cli.options import Json, ProfileDir, default_profile, existing
from dht_atonce.cli.output import Output
from dht_atonce.cli.running import run
from dht_atonce.disk import FolderDisk
from dht_atonce.errors import ProfileError
from dht_atonce.identity import Identity

__all__ = ["app"]

app = typer.Typer(help="Make and show identities.", no_args_is_help=True)


@app.command("new")
def new(profile: ProfileDir = None, json: Json = False) -> None:
    """Make a profile with a new identity, and print its PeerId."""
    run(_new(profile or default_profile(), json))


@app.command("show")
def show(profile: ProfileDir = None, json: Json = False) -> None:
    """Print the PeerId of a profile."""
    run(_show(profile or default_profile(), json))


async def _new(folder: Path, json: bool) -> int:
    disk = FolderDisk(folder)
    try:
        if disk.read("identity.key") is not None:
            raise ProfileError(f"{folder} has an identity already; see it with: atonce id show --profile {folder}")
        identity = Identity.generate(random.SystemRandom())
        disk.write("identity.key", identity.secret_seed)
    finally:
        disk.close()
    _print(identity, folder, json)
    return 0


async def _show(folder: Path, json: bool) -> int:
    secret = FolderDisk(existing(folder), lock=False).read("identity.key")
    if secret is None or len(secret) != 32:
        raise ProfileError(f"the identity in {folder} is damaged; restore identity.key from a backup")
    _print(Identity(secret), folder, json)
    return 0


def _print(identity: Identity, folder: Path, json: bool) -> None:
    output = Output(as_json=json)
    if json:
        output.json({"peer": str(identity.id), "profile": str(folder)})
    else:
        print(identity.id)
