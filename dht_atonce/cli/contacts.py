"""`atonce contacts`: whom the user knows."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dht_atonce.access import CONTACTS_FILE, Contacts, read_contacts
from dht_atonce.cli.control import AddContact, ControlClient, RemoveContact
from dht_atonce.cli.options import Json, ProfileDir, existing, folder_of
from dht_atonce.cli.output import Output, escape
from dht_atonce.cli.running import run
from dht_atonce.disk import FolderDisk
from dht_atonce.errors import AtOnceError
from dht_atonce.identity import PeerId
from dht_atonce.messaging.curve import system_host
from dht_atonce.profile import Profile

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)

PeerArgument = Annotated[str, typer.Argument(metavar="PEERID", help="Who: 56 characters.", show_default=False)]


@app.callback(invoke_without_command=True)
def _options(context: typer.Context) -> None:
    """Keep whom you know, and let in nobody else: atonce join --contacts-only."""
    if context.invoked_subcommand is None:
        Output(as_json=False).line(context.get_help())
        raise typer.Exit(2)


@app.command("add")
def add(
    peer: PeerArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What you call it.", show_default=False)] = "",
    profile: ProfileDir = None,
    json: Json = False,
) -> None:
    """Know a peer from now on; also while the peer of this profile runs."""
    run(_change(folder_of(profile), AddContact(str(PeerId.parse(peer)), name), Output(as_json=json)))


@app.command("remove")
def remove(peer: PeerArgument, profile: ProfileDir = None, json: Json = False) -> None:
    """Know a peer no longer. If only contacts are let in, its link ends at once."""
    run(_change(folder_of(profile), RemoveContact(str(PeerId.parse(peer))), Output(as_json=json)))


@app.command("list")
def show(profile: ProfileDir = None, json: Json = False) -> None:
    """Show all contacts."""
    folder = folder_of(profile)
    names = read_contacts(FolderDisk(existing(folder), lock=False).read(CONTACTS_FILE))
    output = Output(as_json=json)
    if json:
        output.json({"contacts": [{"peer": str(peer_id), "name": name} for peer_id, name in names.items()]})
        return
    for peer_id, name in names.items():
        output.line(f"{peer_id} {name}".rstrip())
    if not names:
        output.console.print(f"[dim]no contacts in {escape(str(folder))}[/]")


async def _change(folder: Path, change: AddContact | RemoveContact, output: Output) -> int:
    """Through the running process of the profile, or, if there is none, in its file."""
    client = await ControlClient.connect(folder)
    if client is not None:
        try:
            reply = await client.ask(change)
        finally:
            client.close()
    else:
        # Whom to let in is said before the first `join`, too.
        reply = await _change_file(folder if isinstance(change, AddContact) else existing(folder), change)
    is_contact = isinstance(change, AddContact)
    if not is_contact and not reply["was_contact"]:
        raise AtOnceError(f"{change.peer[:8]}… is no contact of this profile; see: atonce contacts list")
    if output.as_json:
        output.json({"peer": change.peer, "is_contact": is_contact})
    elif isinstance(change, AddContact):
        output.console.print(f"[green]added[/] {change.peer[:8]}… {escape(change.name)}")
    else:
        output.console.print(f"[green]removed[/] {change.peer[:8]}…")
    return 0


async def _change_file(folder: Path, change: AddContact | RemoveContact) -> dict[str, Any]:
    profile = Profile.open(folder, system_host())
    try:
        contacts = Contacts(profile)
        if isinstance(change, AddContact):
            await contacts.add(change.peer, change.name)
            return {}
        return {"was_contact": await contacts.remove(change.peer)}
    finally:
        profile.close()
