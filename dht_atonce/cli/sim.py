"""`atonce sim`: whole networks in one process, in virtual time, by the code that runs in production."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dht_atonce.cli.options import Json
from dht_atonce.cli.output import Output
from dht_atonce.errors import AtOnceError, ConfigError

if TYPE_CHECKING:  # what simulates is loaded when it is wanted: other commands start sooner
    from atonce_sim.results import Run
    from atonce_sim.simulation import Options

__all__ = ["app"]

_STOCK_PEERS = 1000  # beyond it stock kademlia's storms take hours

app = typer.Typer(
    rich_markup_mode=None,
    help="Simulate a network: thousands of peers in one process, in virtual time, by the code that runs in production. "
    "One seed number replays a run exactly.",
    no_args_is_help=True,
)


class Node(StrEnum):
    """What the peers run."""

    ours = "ours"
    stock = "stock"
    both = "both"


class Level(StrEnum):
    """How much of a peer is simulated."""

    node = "node"
    peer = "peer"


class Crypto(StrEnum):
    """Whether datagrams are sealed."""

    real = "real"
    off = "off"


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A scenario of `atonce sim list`, or a file that ends in .toml.")
]
Peers = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=1_000_000, help="How many peers. Default: the scenario's.")
]
Seed = Annotated[int, typer.Option(metavar="S", help="The number that decides all chance.")]
LevelOption = Annotated[
    Level | None,
    typer.Option(help="Nodes of the DHT alone, or whole peers with links and a seed. Default: the scenario's."),
]
CryptoOption = Annotated[
    Crypto, typer.Option(help="`off`: datagrams are not encrypted; for runs whose subject is size.")
]


@app.command("list", short_help="List the scenarios and their questions.")
def list_scenarios(json: Json = False) -> None:
    """List the scenarios that come with @Once, and the question that each one answers."""
    from atonce_sim.scenario_file import library, read_scenario

    output = Output(as_json=json)
    for name, text in library().items():
        scenario = read_scenario(text, f"{name}.toml")
        if json:
            output.json({"name": name, "question": scenario.question, "peers": scenario.peers, "level": scenario.level})
        else:
            output.console.print(f"[bold]{name:20}[/] {scenario.question}")


@app.command("run", short_help="Run a scenario.")
def run_scenario(
    name: Name,
    peers: Peers = None,
    seed: Seed = 1,
    node: Annotated[
        Node,
        typer.Option(help="`stock`: unchanged kademlia in the same world, as a baseline; `both`: one after the other."),
    ] = Node.ours,
    level: LevelOption = None,
    crypto: CryptoOption = Crypto.real,
    profile: Annotated[bool, typer.Option(help="Find out where the time goes; takes twice as long.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep all figures in this folder, for `atonce sim report`.")
    ] = None,
    json: Json = False,
) -> None:
    """Run a scenario, and say whether what it expects holds.

    Exits 0 only if all expectations of the scenario hold and no invariant was broken. With --json the last line is the
    summary.
    """
    output = Output(as_json=json)
    kinds = ["ours", "stock"] if node is Node.both else [node.value]
    runs = []
    # All of them before the first: nobody shall wait for one half of a comparison to hear that there is no other.
    for options in [_options(name, peers, seed, kind, level, crypto, profile) for kind in kinds]:
        run = _simulate(options, output)
        runs.append(run)
        if save is not None:
            _save(run, save, output)
        _show(run, output)
    if len(runs) > 1:
        _compare(runs[0], runs[1], output)
    raise typer.Exit(0 if runs[0].summary.held else 1)  # beside ours, stock is only what it is measured by


@app.command(short_help="Show the events of one host or one lookup of a run.")
def replay(
    name: Name,
    host: Annotated[int | None, typer.Option(metavar="NUMBER", min=0, help="The host whose events are shown.")] = None,
    lookup: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, help="The lookup whose datagrams are shown; the first is 1.")
    ] = None,
    peers: Peers = None,
    seed: Seed = 1,
    level: LevelOption = None,
    crypto: CryptoOption = Crypto.real,
    json: Json = False,
) -> None:
    """Run a scenario again, exactly as it was, and show the events of one host or of one lookup in order.

    Datagrams are shown in words, though they are sealed: in a simulation both ends can be looked at.
    """
    if (host is None) == (lookup is None):
        raise typer.BadParameter("give one of --host and --lookup")
    from atonce_sim.replay import Recorder

    output = Output(as_json=json)
    recorder = Recorder(host=host, lookup=lookup)
    run = _simulate(_options(name, peers, seed, "ours", level, crypto, False), output, recorder)
    if not recorder.lines:
        what = f"host {host} did nothing" if lookup is None else f"there was no lookup {lookup}"
        raise AtOnceError(f"{what} in this run")
    for line in recorder.lines:
        if json:
            output.json(line._asdict())
        else:
            arrow = {"sent": "→", "arrived": "←", "lost": "✗", "frame": "⇒"}.get(line.what, "·")
            other = f"host {line.other}" if line.other >= 0 else ""
            words = line.words if line.what in ("sent", "arrived", "lost", "frame") else f"{line.what} {line.words}"
            output.line(f"{line.at_s:12.4f} s  host {line.host:<6} {arrow} {other:12} {words}")
    if recorder.left_out:
        Output.error(f"{recorder.left_out} more events are left out")
    if not json:
        output.console.print(f"[dim]digest of the whole run: {run.summary.trace_digest}[/]")


@app.command(short_help="Compare real processes with simulated nodes.")
def compare(
    peers: Annotated[int, typer.Option(metavar="N", min=2, max=400, help="How many, on both sides.")] = 100,
    lookups: Annotated[
        int, typer.Option(metavar="N", min=1, max=100_000, help="Lookups that leave their node, one after another.")
    ] = 500,
    k: Annotated[
        int, typer.Option(metavar="K", min=1, max=64, help="Replicas of a record, and seats in a bucket.")
    ] = 8,
    seed: Seed = 1,
    way_ms: Annotated[
        float,
        typer.Option(
            metavar="MS", min=0, max=1000, help="Hold real datagrams up by so much on average, as a longer way would."
        ),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Run the same network twice, as processes on loopback and simulated, and say whether the two agree.

    Both have the same keys, joins and lookups; the simulation is fed with the round trips that the processes measured.
    Exits 0 only if hops and requests per lookup differ by at most 10 %. With --json the last line has all figures.
    """
    from atonce_sim.reality.comparison import compare as compare_sides
    from atonce_sim.reality.procedure import Plan
    from dht_atonce.cli.compare_view import progress_of_sides, show_comparison

    output = Output(as_json=json)
    try:
        with progress_of_sides(output) as on_progress:
            comparison = compare_sides(Plan(peers, lookups, k, seed, way_ms), on_progress)
    except KeyboardInterrupt:
        Output.error("interrupted; all processes have been ended")
        raise typer.Exit(130) from None
    show_comparison(comparison, output)
    raise typer.Exit(0 if comparison.held else 1)


@app.command(short_help="Make a page and tables of saved runs.")
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Files that `atonce sim run --save` wrote.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the page (index.html) and its CSV files.")
    ] = Path("report"),
    json: Json = False,
) -> None:
    """Write a page with pictures, which needs nothing else, and CSV files beside it."""
    from atonce_sim.report import write_report
    from atonce_sim.results import load_run

    output = Output(as_json=json)
    try:
        page = write_report([load_run(path) for path in runs], out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}") from None
    except ModuleNotFoundError as error:
        _missing(error)
    if json:
        output.json({"event": "report", "page": str(page)})
    else:
        output.console.print(f"The report is [bold]{page}[/]")


def _missing(error: ModuleNotFoundError) -> NoReturn:
    raise AtOnceError(f"{error.name} is needed for this; install it with: pip install 'dht-atonce[sim]'") from None


def _options(
    name: str, peers: int | None, seed: int, node: str, level: Level | None, crypto: Crypto, profile: bool
) -> "Options":
    from atonce_sim.scenario_file import load_scenario
    from atonce_sim.simulation import Options

    short_name, scenario = load_scenario(name)
    peers = peers or scenario.peers
    if node == "stock" and peers > _STOCK_PEERS:
        raise ConfigError(f"stock kademlia is simulated with at most {_STOCK_PEERS} peers; choose --peers accordingly")
    if node == "stock" and scenario.needs_ours:
        raise ConfigError(f"{short_name} has hostile peers, and those speak the protocol of @Once only")
    chosen = level.value if level is not None else scenario.level
    if node == "stock":
        chosen = "node"
    if chosen == "node" and scenario.needs_peers:
        raise ConfigError(f"{short_name} sends messages or needs seeds, and nodes of the DHT alone do neither")
    return Options(
        name=short_name,
        source=name,
        scenario=scenario,
        peers=peers,
        seed=seed,
        node="stock" if node == "stock" else "ours",
        level="node" if chosen == "node" else "peer",
        crypto="off" if crypto is Crypto.off else "real",
        profile=profile,
    )


def _simulate(options: "Options", output: Output, recorder: Any = None) -> "Run":
    from atonce_sim.simulation import simulate
    from dht_atonce.cli.sim_view import progress_view

    try:
        with progress_view(output, options) as on_progress:
            return simulate(options, on_progress, recorder)
    except KeyboardInterrupt:
        Output.error(f"interrupted; it begins anew with: {options.command}")
        raise typer.Exit(130) from None
    except AtOnceError:
        raise
    except Exception as error:
        raise AtOnceError(
            f"the simulation ended in {type(error).__name__}: {error}; this replays it: {options.command}"
        ) from error


def _save(run: "Run", folder: Path, output: Output) -> None:
    from atonce_sim.results import save_run

    summary = run.summary
    name = f"{summary.scenario}-{summary.peers}-{summary.seed}-{summary.node}"
    path = folder / (name + ("-off.json" if summary.crypto == "off" and summary.node == "ours" else ".json"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_run(run, path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    if not output.as_json:
        output.console.print(f"[dim]saved as {path}[/]")


def _show(run: "Run", output: Output) -> None:
    from dht_atonce.cli.sim_view import show_run, summary_object

    if output.as_json:
        output.json(summary_object(run))
    else:
        show_run(run, output)


def _compare(ours: "Run", stock: "Run", output: Output) -> None:
    from dht_atonce.cli.sim_view import ratios, show_ratios

    if output.as_json:
        output.json({"event": "ratios", "ours_to_stock": ratios(ours, stock)})
    else:
        show_ratios(ours, stock, output)
