"""The `atonce` command."""

from typing import Annotated

import typer

from dht_atonce.cli import ids
from dht_atonce.cli.ask import lookup, send, status
from dht_atonce.cli.demo import demo
from dht_atonce.cli.join import join
from dht_atonce.cli.seeds import seed

__all__ = ["app", "main"]

app = typer.Typer(
    name="atonce",
    help="Presence and direct messages between peers, without a server in between.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"atonce {version('dht-atonce')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Presence and direct messages between peers, without a server in between."""


app.command()(seed)
app.command()(join)
app.command()(lookup)
app.command()(send)
app.command()(status)
app.add_typer(ids.app, name="id")
app.command()(demo)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
