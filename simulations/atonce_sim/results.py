"""What a run gives: the summary for programs, and all that a report draws. Written as one JSON file per run."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from dht_atonce.errors import ConfigError

__all__ = [
    "Expectation",
    "Hops",
    "Invariants",
    "LookupCounts",
    "MessageCounts",
    "ProfileLine",
    "Quantiles",
    "Run",
    "Sample",
    "Summary",
    "load_run",
    "save_run",
]

FORMAT = 1


class Quantiles(msgspec.Struct, frozen=True):
    """Quantiles by nearest rank; None: nothing was measured, or this quantile was not asked for."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class Hops(msgspec.Struct, frozen=True):
    """Length of the referral chain to the node that answered; a contact of the own table is 1."""

    mean: float | None = None
    p99: float | None = None


class LookupCounts(msgspec.Struct, frozen=True):
    """Lookups by what the world's truth says of their answer; `local` were answered by the own store, and are in none
    of the others; `local_stale` of them gave an older record."""

    attempted: int = 0
    correct: int = 0
    stale: int = 0
    wrong: int = 0
    failed: int = 0
    local: int = 0
    local_stale: int = 0


class MessageCounts(msgspec.Struct, frozen=True):
    """Messages from peer to peer. `sent`: handed to `send`; `delivered`: acknowledged. `lost`: acknowledged, and the
    receiver's app never saw it. `doubled`: seen twice. `unknown`: neither acknowledged nor refused."""

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    doubled: int = 0
    unknown: int = 0


class Invariants(msgspec.Struct, frozen=True):
    """How often an invariant was looked at, and how often it did not hold."""

    checked: int = 0
    broken: int = 0


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The object with which `--json` ends."""

    scenario: str
    peers: int
    seed: int
    node: str
    """`ours` or `stock`."""
    level: str
    """`node` (DHT nodes only) or `peer` (whole peers with links, and a seed)."""
    crypto: str
    """`real` or `off`."""
    sim_s: float
    """Simulated seconds."""
    wall_s: float
    us_per_request: float | None
    """CPU time of the whole run over requests sent (each with its answer)."""
    requests: int
    peak_rss_bytes: int
    bytes_per_node: float | None
    """Memory: growth of the resident set while the network was built, over its nodes."""
    lookups: LookupCounts
    lookup_s: Quantiles
    lookup_rtts: Quantiles
    """In mean round trips of this world."""
    requests_per_lookup: float | None
    hops: Hops
    publish_s: Quantiles
    replicas_mean: float | None
    """Nodes of the true k closest that hold a record, mean over the records that were looked at."""
    bytes_per_node_s: dict[str, float | None]
    """UDP payload sent by a node per simulated second: `mean` and `p99` over nodes."""
    seed_share: float | None
    """Bytes that peers sent to seeds of their own accord after they had joined, over all bytes."""
    messages: MessageCounts
    invariants: Invariants
    trace_digest: str
    held: bool
    """All expectations of the scenario held, and no invariant was broken."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One interval of the run. Counts are of that interval."""

    at_s: float
    """Simulated seconds at its end."""
    phase: str
    """What the scenario was doing, e.g. "join"."""
    live: int
    """Nodes that were up at its end."""
    correct: int = 0
    stale: int = 0
    wrong: int = 0
    failed: int = 0
    bytes_sent: int = 0
    datagrams: int = 0
    seed_bytes: int = 0
    """Sent by seeds and to seeds."""
    seats_mean: float | None = None
    """Contacts with a seat per node."""
    dead_seats: float | None = None
    """Share of all seats whose node is not up (or moved)."""
    neighbours_known: float | None = None
    """Share of the true k closest nodes that a node has in its table, mean over nodes."""


class Expectation(msgspec.Struct, frozen=True):
    """What the scenario file wanted, and what was."""

    what: str
    wanted: str
    measured: str
    held: bool
    expected_to_fail: str = ""
    """Why this is known not to hold yet, and which issue removes the mark; empty: it must hold."""


class ProfileLine(msgspec.Struct, frozen=True):
    """Where the time went: one part of the code."""

    where: str
    """e.g. `dht/protocol.py`"""
    share: float
    """Of all CPU time of the run, 0 to 1."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """All of one run."""

    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)] = FORMAT
    question: str
    """The scenario's, for people."""
    world: str
    """Latency, loss and so on, in words."""
    command: str
    """Replays this run."""
    summary: Summary
    samples: list[Sample] = []
    lookup_s: list[float] = []
    """Each lookup that left its node and was answered, in simulated seconds."""
    mean_rtt_s: float | None = None
    hops: list[int] = []
    publish_s: list[float] = []
    node_bytes_s: list[float] = []
    """Bytes per second sent by each node, seeds apart."""
    seed_bytes_s: list[float] = []
    """Bytes per second sent by each seed."""
    expectations: list[Expectation] = []
    broken: list[str] = []
    """Invariants that did not hold, in words, the first hundred."""
    profile: list[ProfileLine] = []
    """Empty unless profiled."""


_DECODER = msgspec.json.Decoder(Run)


def save_run(run: Run, path: Path) -> None:
    """Write one run. Raises OSError."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1))


def load_run(path: Path) -> Run:
    """Read what `save_run` wrote. Raises `ConfigError` that names the file and what is wrong in it."""
    try:
        return _DECODER.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no run of `atonce sim run`: {error}") from None
