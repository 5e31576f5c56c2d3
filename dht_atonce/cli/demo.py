"""`atonce demo`: a whole network on this machine, in separate processes, that outlives its seed."""

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dht_atonce.cli.demo_network import DemoNetwork
from dht_atonce.cli.demo_trial import Phase, Trial
from dht_atonce.cli.output import Output
from dht_atonce.cli.running import run

__all__ = ["demo"]

_K = 4  # so few replicas that most lookups have to leave the node, even among eight


def demo(
    peers: Annotated[int, typer.Option(min=8, max=100, help="How many peers, each a process.")] = 8,
    lookups: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Lookups in each round. Default: one for each pair, at most 200."),
    ] = None,
    messages: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Messages in each round. Default: as many as lookups.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object per step and line, the figures in the last.")
    ] = False,
) -> None:
    """Start a seed and some peers as processes; kill the seed; see that the network lives on.

    Exits 0 only if everything held.
    """
    lookups = lookups or min(200, peers * (peers - 1))
    run(_demo(peers, lookups, messages or lookups, Output(as_json=json)))


async def _demo(peers: int, lookups: int, messages: int, output: Output) -> int:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="atonce-demo-") as folder:
        async with DemoNetwork(Path(folder), _K) as network:
            trial = Trial(network, output)
            await trial.join(peers)
            await trial.lookups("lookups, seed alive", lookups)
            await trial.messages("messages, seed alive", messages)
            await trial.kill_seed()
            await trial.lookups("lookups, seed killed", lookups)
            await trial.messages("messages, seed killed", messages)
            await trial.restart_one()
            await trial.count_calls_to_seed()
    elapsed_s = time.perf_counter() - began
    _report(trial, peers, elapsed_s, output)
    return 0 if trial.held else 1


def _report(trial: Trial, peers: int, elapsed_s: float, output: Output) -> None:
    if output.as_json:
        phases = [phase.summary() for phase in trial.phases]
        output.json(
            {
                "event": "summary",
                "peers": peers,
                "k": _K,
                "elapsed_s": round(elapsed_s, 2),
                "phases": phases,
                "to_seed": trial.to_seed,
                "problems": trial.problems,
                "held": trial.held,
            }
        )
        return
    from rich.table import Table

    table = Table(title=f"{peers} peers and a seed, k = {_K}", title_justify="left")
    table.add_column("")
    for name in ("right", "p50 ms", "p99 ms", "max ms", "own store"):
        table.add_column(name, justify="right")
    for phase in trial.phases:
        table.add_row(*_row(phase))
    output.console.print(table)
    if any(phase.local for phase in trial.phases):
        output.console.print("[dim]own store: answered without asking anybody; not counted as lookups[/]")
    sent = ", ".join(f"{count} {what}" for what, count in trial.to_seed.items())
    output.console.print(f"to the seed, of their own accord, after the first live contact: {sent}")
    for problem in trial.problems:
        output.console.print(f"[red]✗[/] {problem}")
    verdict = "[green bold]everything held[/]" if trial.held else "[red bold]not everything held[/]"
    output.console.print(f"{verdict} in {elapsed_s:.1f} s")


def _row(phase: Phase) -> list[str]:
    figures: dict[str, Any] = phase.summary()
    colour = "green" if figures["right"] == figures["asked"] else "red"
    apart = str(figures["local"]) if figures["local"] else ""
    times = [f"{figures[name]:.1f}" for name in ("p50_ms", "p99_ms", "max_ms")]
    return [phase.name, f"[{colour}]{figures['right']} of {figures['asked']}[/]", *times, f"[dim]{apart}[/]"]
