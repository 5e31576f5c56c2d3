"""The command: `python -m soak weather`."""

import asyncio
import time
from collections import Counter

import typer

from soak import cuts
from soak.restarts import Judge, act, restart
from soak.weather import weather as one_storm

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Long runs that try to make delivery break its word."""


@app.command()
def weather(
    seeds: int = typer.Option(1000, min=1, help="How many runs."),
    first: int = typer.Option(1, help="The first seed."),
) -> None:
    """Bad weather in the virtual world; exits 1 if a receipt lied, or anything came twice or out of order."""
    began, states, blows, problems = time.monotonic(), Counter[str](), Counter[str](), 0
    for seed in range(first, first + seeds):
        outcome = one_storm(seed)
        states += outcome.states
        blows += outcome.weather
        for problem in outcome.problems[:5]:
            typer.echo(f"seed {seed}: {problem}")
        problems += len(outcome.problems)
        if seed % 50 == 0 or seed == first + seeds - 1:
            spent_s = time.monotonic() - began
            typer.echo(f"{seed - first + 1} runs, {spent_s:.0f} s, {dict(states)}, {dict(blows)}, {problems} problems")
    raise typer.Exit(1 if problems else 0)


@app.command("cuts")
def cuts_(
    messages: int = typer.Option(1_000_000, min=1),
    every_s: float = typer.Option(1.0, min=0.05, help="Seconds between two cuts of the link."),
) -> None:
    """A million messages over real sockets, the link cut every second; exits 1 if any is lost, doubled, disordered."""
    began = time.monotonic()
    states, report = asyncio.run(cuts.cut_regularly(messages, every_s))
    typer.echo(f"{time.monotonic() - began:.0f} s; receipts: {states}; the receiver: {report}")
    raise typer.Exit(states != {"delivered": messages} or report.received != messages or report.out_of_order > 0)


@app.command()
def redials(links: int = typer.Option(10_000, min=1)) -> None:
    """One message over each of ten thousand links, all of them cut; exits 1 if one of them was deaf."""
    began = time.monotonic()
    lost, report = asyncio.run(cuts.redial(links))
    typer.echo(f"{time.monotonic() - began:.0f} s; not delivered: {lost}; the receiver: {report}")
    raise typer.Exit(lost > 0 or report.received != links or report.out_of_order > 0)


@app.command()
def restarts(
    messages: int = typer.Option(200_000, min=1),
    kill_every_s: float = typer.Option(4.0, min=0.5, help="Seconds between two kills of either process, about."),
    cut_every_s: float = typer.Option(1.0, min=0, help="Seconds between two cuts of the links; 0: none."),
    seed: int = typer.Option(1, help="Of who is killed when."),
) -> None:
    """Durable messages between two peers that are killed and come back elsewhere; exits 1 if a promise was broken."""
    began = time.monotonic()

    def say(judge: Judge) -> None:
        spent_s = time.monotonic() - began
        done = f"{len(judge.done):,} of {messages:,} done, {judge.kills} kills, {judge.again} came again"
        typer.echo(
            f"{spent_s:.0f} s: {done}, {judge.resent} were sent twice, {judge.unsaid} not said to be done, "
            f"{len(judge.problems)} problems"
        )

    judge = asyncio.run(restart(messages, kill_every_s, cut_every_s, say, seed))
    say(judge)
    for problem in judge.problems[:20]:
        typer.echo(problem)
    raise typer.Exit(bool(judge.problems))


@app.command(hidden=True)
def actor(name: str, args: list[str]) -> None:
    """One of the processes of `restarts`."""
    asyncio.run(act(name, args))


@app.command(hidden=True)
def far(every_s: float, each: int) -> None:
    """The other process of `cuts` and `redials`."""
    asyncio.run(cuts.far(every_s, each))


app()
