"""`atonce demo`: a whole network on this machine, in separate processes, that outlives its seed."""

import time
from typing import Annotated

import typer

from dht_atonce.cli.demo_network import DemoNetwork
from dht_atonce.cli.demo_trial import Trial
from dht_atonce.cli.demo_view import figures_table, view_for
from dht_atonce.cli.output import Output, count, escape
from dht_atonce.cli.running import run
from dht_atonce.errors import AtOnceError

__all__ = ["conduct", "demo", "report"]

_K = 4  # so few replicas that most lookups have to leave the node, even among eight
_MOST_PROBLEMS = 10  # shown to people; programs get all


def demo(
    peers: Annotated[
        int, typer.Option(metavar="N", min=8, max=100, help="How many peers, each a process of 50 MB.")
    ] = 8,
    lookups: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=100_000,
            help="Lookups in each round. Default: one for each pair, at most 200.",
        ),
    ] = None,
    messages: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=100_000, help="Messages in each round. Default: as many as lookups."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object per step and line, the figures in the last.")
    ] = False,
) -> None:
    """Start a seed and some peers as processes; kill the seed; see that the network lives on.

    Takes about ten seconds. Exits 0 only if everything held. Nothing is left behind.
    """
    lookups = lookups or min(200, peers * (peers - 1))
    network = DemoNetwork(_K)
    run(conduct(network, peers, lookups, messages or lookups, Output(as_json=json)), at_once=network.end_at_once)


async def conduct(network: DemoNetwork, peers: int, lookups: int, messages: int, output: Output) -> int:
    """The whole of it; gives the exit code. Raises `AtOnceError` if nobody reads what comes of it."""
    began = time.perf_counter()
    with view_for(output) as view:
        trial = Trial(network, view)
        try:
            async with network:
                await trial.run(peers, lookups, messages)
        except AtOnceError as error:
            if output.is_lost:
                raise
            trial.problems.append(str(error))
        trial.look_back()
    report(trial, peers, time.perf_counter() - began, output)
    return 0 if trial.held else 1


def report(trial: Trial, peers: int, elapsed_s: float, output: Output) -> None:
    """What came of it all: the last line of JSON, or a table and a verdict."""
    if output.as_json:
        output.json(
            {
                "event": "summary",
                "peers": peers,
                "k": _K,
                "elapsed_s": round(elapsed_s, 2),
                "phases": [phase.summary() for phase in trial.phases],
                "to_seed": trial.to_seed,
                "problems": trial.problems,
                "held": trial.held,
            }
        )
        return
    console = output.console
    console.print(f"\n[bold]{count(peers, 'peer')} and a seed, each a process of its own[/]")
    console.print(figures_table(trial.rows))
    if trial.to_seed:
        mark = "[red]✗[/]" if any(trial.to_seed.values()) else "[green]✓[/]"
        sent = ", ".join(f"{number} {what}" for what, number in trial.to_seed.items())
        console.print(f"{mark} sent to the seed by peers that knew others already: {sent}")
    if local := sum(phase.local for phase in trial.phases):
        console.print(f"[dim]{count(local, 'lookup')} more needed nobody: the answer was in the asker's own store[/]")
    for problem in trial.problems[:_MOST_PROBLEMS]:
        console.print(f"[red]✗[/] {escape(problem)}")
    if (more := len(trial.problems) - _MOST_PROBLEMS) > 0:
        console.print(f"[red]✗[/] and {more} more")
    verdict = "[green bold]✓ everything held[/]" if trial.held else "[red bold]✗ not everything held[/]"
    console.print(f"{verdict} [dim]in {elapsed_s:.1f} s; times: one question or message[/]")
