"""`atonce push` and `atonce pull`: files to and from other peers."""

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dht_atonce.cli.ask import PeerArgument, asking
from dht_atonce.cli.control import CancelTransfer, LookAtTransfer, Pull, Push
from dht_atonce.cli.options import Json, Listen, NetworkName, ProfileDir, Seeds, folder_of
from dht_atonce.cli.output import Output, escape
from dht_atonce.cli.running import run
from dht_atonce.errors import AtOnceError, TransferFailed
from dht_atonce.identity import PeerId

__all__ = ["pull", "push"]

_LOOK_S = 0.1
_TELL_S = 0.5
"""Between two progress events."""


def push(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to give.", show_default=False)],
    peer: PeerArgument,
    profile: ProfileDir = None,
    seed: Seeds = None,
    network: NetworkName = None,
    listen: Listen = None,
    json: Json = False,
) -> None:
    """Give a file to a peer that takes files (atonce join --receive DIR). Returns when it is whole on its disk.

    After a break, the same command goes on where it was.
    """
    who = PeerId.parse(peer)
    path = file.expanduser()
    if not path.is_file():
        raise TransferFailed(f"{file} is no file")
    request = Push(str(who), str(path.absolute()))
    asked = asking(folder_of(profile), seed, network, listen)
    run(_transfer(request, asked, {"file": path.name, "peer": str(who)}, f"to {who.short}…", Output(as_json=json)))


def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The file's name there.", show_default=False)],
    peer: PeerArgument,
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Where to put it. Default: the working folder.")
    ] = Path(),
    profile: ProfileDir = None,
    seed: Seeds = None,
    network: NetworkName = None,
    listen: Listen = None,
    json: Json = False,
) -> None:
    """Get a file from a peer that gives files (atonce join --serve DIR). Nothing is overwritten.

    After a break, the same command goes on where it was.
    """
    who = PeerId.parse(peer)
    folder = to.expanduser()
    if not folder.is_dir():
        raise TransferFailed(f"{to} is no folder")
    request = Pull(str(who), name, str(folder.absolute()))
    asked = asking(folder_of(profile), seed, network, listen)
    details = {"file": name, "peer": str(who), "path": str(folder / name)}
    run(_transfer(request, asked, details, f"from {who.short}…", Output(as_json=json)))


async def _transfer(
    request: Push | Pull,
    asked: contextlib.AbstractAsyncContextManager[Any],
    details: dict[str, str],
    where: str,
    output: Output,
) -> int:
    async with asked as ask:
        began = time.perf_counter()
        number = (await ask(request))["transfer"]
        try:
            with _bar(details["file"], output) as show:
                state = await ask(LookAtTransfer(number))
                told = 0.0
                while not state["complete"]:
                    show(state["done_bytes"], state["size_bytes"])
                    if output.as_json and state["size_bytes"] and time.perf_counter() - told >= _TELL_S:
                        told = time.perf_counter()
                        output.json({"event": "progress", **_sizes(state)})
                    await asyncio.sleep(_LOOK_S)
                    state = await ask(LookAtTransfer(number))
                show(state["size_bytes"], state["size_bytes"])
        except asyncio.CancelledError:
            with contextlib.suppress(AtOnceError):
                await ask(CancelTransfer(number))
            raise
    elapsed_s = time.perf_counter() - began
    if output.as_json:
        output.json({"event": "complete", **details, **_sizes(state), "elapsed_ms": round(elapsed_s * 1000, 1)})
    else:
        size = state["size_bytes"]
        speed = f"{size / 1e6 / elapsed_s:.1f} MB/s"
        name = escape(details["file"])
        output.console.print(f"[green]complete[/]: {name} {where} [dim]{size} bytes, {elapsed_s:.1f} s, {speed}[/]")
    return 0


def _sizes(state: dict[str, Any]) -> dict[str, int]:
    return {name: state[name] for name in ("done_bytes", "size_bytes", "resumed_bytes")}


@contextlib.contextmanager
def _bar(name: str, output: Output) -> Any:
    """A progress bar, where somebody looks at it."""
    if output.as_json or not sys.stderr.isatty():
        yield lambda done, size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(escape(name), total=None)
        yield lambda done, size: progress.update(task, completed=done, total=size or None)
