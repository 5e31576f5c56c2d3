"""`atonce id`: make and show identities."""

import random
from pathlib import Path

import typer

from dht_atonce.cli.options import Json, ProfileDir, existing, folder_of
from dht_atonce.cli.output import Output
from dht_atonce.disk import FolderDisk
from dht_atonce.errors import ProfileError
from dht_atonce.identity import Identity

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def _options(context: typer.Context) -> None:
    """Make and show identities."""
    if context.invoked_subcommand is None:
        Output(as_json=False).line(context.get_help())
        raise typer.Exit(2)


@app.command("new")
def new(profile: ProfileDir = None, json: Json = False) -> None:
    """Make a profile with a new identity, and print its PeerId."""
    folder = folder_of(profile)
    disk = FolderDisk(folder)
    try:
        if disk.read("identity.key") is not None:
            raise ProfileError(f"{folder} has an identity already; see it with: atonce id show --profile {folder}")
        identity = Identity.generate(random.SystemRandom())
        disk.write("identity.key", identity.secret_seed)
    finally:
        disk.close()
    _print(identity, folder, json)


@app.command("show")
def show(profile: ProfileDir = None, json: Json = False) -> None:
    """Print the PeerId of a profile."""
    folder = folder_of(profile)
    secret = FolderDisk(existing(folder), lock=False).read("identity.key")
    if secret is None or len(secret) != 32:
        raise ProfileError(f"the identity in {folder} is damaged; restore identity.key from a backup")
    _print(Identity(secret), folder, json)


def _print(identity: Identity, folder: Path, json: bool) -> None:
    output = Output(as_json=json)
    if json:
        output.json({"peer": str(identity.id), "profile": str(folder)})
    else:
        output.line(str(identity.id))
