"""The `atonce` command."""

import os
import sys
from typing import Annotated, Any

import typer

from dht_atonce.cli import contacts, ids, sim
from dht_atonce.cli.ask import lookup, notify, send, status
from dht_atonce.cli.demo import demo
from dht_atonce.cli.files import pull, push
from dht_atonce.cli.join import join
from dht_atonce.cli.listen import listen
from dht_atonce.cli.output import Output, outlet_lost
from dht_atonce.cli.running import explain
from dht_atonce.cli.seeds import seed
from dht_atonce.errors import AtOnceError

__all__ = ["app", "main"]

app = typer.Typer(
    name="atonce",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: it fits into 80 columns, and half the lines
)

_FIRST_STEPS = """\b
On one machine, each in a terminal of its own:
  atonce seed --local --listen 127.0.0.1       prints the seed's URL
  atonce join --profile ~/alice --seed URL     prints alice's PeerId
  atonce join --profile ~/bob --seed URL
  atonce send --profile ~/bob PEERID "hello"
Or see all of it at once: atonce demo"""


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        Output(as_json=False).line(f"atonce {version('dht-atonce')}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=_FIRST_STEPS)
def _options(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Presence and direct messages between peers, without a server in between."""
    if context.invoked_subcommand is None:
        Output(as_json=False).line(context.get_help())
        raise typer.Exit(2)


app.command(short_help="Run a seed: it lets newcomers in. Prints its URL.")(seed)
app.command(short_help="Run a peer: be found, print messages.")(join)
app.command(short_help="Find a peer: its status and addresses.")(lookup)
app.command(short_help="Send a message to a peer.")(send)
app.command(short_help="Give a file to a peer.")(push)
app.command(short_help="Get a file from a peer.")(pull)
app.command(short_help="Say something to everybody in a room.")(notify)
app.command(short_help="Hear what is said in a room; run a command for each.")(listen)
app.command(short_help="Show how a running peer or seed is.")(status)
app.add_typer(contacts.app, name="contacts", short_help="Keep whom you know, and let in nobody else.")
app.add_typer(ids.app, name="id", short_help="Make and show identities.")
app.add_typer(sim.app, name="sim", short_help="Simulate networks of thousands of peers.")
app.command(short_help="Show a network at work, and that it outlives its seed.")(demo)


def main() -> None:
    """Entry point of the console script."""
    _open_missing_streams()
    try:
        code = app(prog_name="atonce", standalone_mode=False)
    except AtOnceError as error:
        code = explain(error)
    except OSError as error:  # of what typer prints by itself: the help
        code = explain(outlet_lost(error))
    except Exception as error:
        code = _explain_usage(error) or explain(error)
    sys.exit(code)


def _open_missing_streams() -> None:
    """A shell's `>&-` leaves a descriptor free that the next socket would take: what we print would go there."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]


def _explain_usage(error: Any) -> int:
    """A mistake in the command line, in one line; 0 if it is something else.

    typer brings its own click, older ones use the one that is installed: so what it raises is known by its methods.
    """
    if not hasattr(error, "format_message"):
        return 0
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "atonce"
    Output.error(f"{' '.join(error.format_message().split()).rstrip('.')}; see: {command} --help")
    return int(error.exit_code)


if __name__ == "__main__":
    main()
