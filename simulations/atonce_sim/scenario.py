"""Scenarios: small TOML files that say the question, the world, the workload and what is expected."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from atonce_sim.hostile.kinds import Kind
from atonce_sim.sessions import Session
from atonce_sim.toil import Effort
from atonce_sim.wires import Conditions
from dht_atonce.config import DhtConfig

__all__ = [
    "Arrive",
    "Churn",
    "Crash",
    "Disks",
    "Expect",
    "Heal",
    "Invade",
    "Join",
    "KillSeeds",
    "KnownFailure",
    "Leave",
    "Lookups",
    "Messages",
    "Network",
    "Partition",
    "Restart",
    "Scenario",
    "Set",
    "Step",
    "Update",
    "Wait",
    "condition",
]

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=7 * 86400)]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]
Rate = Annotated[float, Meta(gt=0, le=100_000)]
PerPeer = Annotated[float, Meta(gt=0, le=10_000)]


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is not known is a mistake."""


class _Step(_Strict, frozen=True, kw_only=True, tag_field="do"):
    name: str = ""
    """For reports; measures of this step alone are `NAME.measure` in expectations."""


class Join(_Step, frozen=True, kw_only=True, tag="join"):
    """Newcomers come, and publish their presence."""

    share: Share = 1.0
    """Of all peers of the run."""
    over_s: Seconds = 60.0
    """At moments drawn from this span; the first comes at once."""
    per_s: Rate | None = None
    """How many in a second, instead of a span: so that a larger network is not built in a greater hurry."""


class Wait(_Step, frozen=True, kw_only=True, tag="wait"):
    """Nothing but upkeep."""

    s: Seconds


class Update(_Step, frozen=True, kw_only=True, tag="update"):
    """Peers publish anew."""

    share: Share = 1.0
    over_s: Seconds = 60.0


class Lookups(_Step, frozen=True, kw_only=True, tag="lookups"):
    """Peers look each other up."""

    count: Count | None = None
    per_peer: PerPeer | None = None
    over_s: Seconds = 60.0
    per_s: Rate | None = None
    of: Literal["live", "anybody", "crashed", "left", "nobody", "aimed"] = "live"
    """Whose presence; `nobody`: keys under which nothing was ever said; `aimed`: keys that hostile peers aim at."""
    by: Literal["anybody", "victims"] = "anybody"
    """Who asks; `victims`: those at whom hostile peers aim."""
    fresh: bool = False
    updates_per_s: Annotated[float, Meta(ge=0, le=10_000)] = 0.0
    """How many peers publish anew meanwhile, in the whole network."""


class Messages(_Step, frozen=True, kw_only=True, tag="messages"):
    """Peers send messages to peers that are up."""

    count: Count | None = None
    per_peer: PerPeer | None = None
    over_s: Seconds = 60.0
    durable: bool = False
    """They are kept on disks; a step `arrive` waits for them."""


class Arrive(_Step, frozen=True, kw_only=True, tag="arrive"):
    """It is waited for all durable messages that were kept so far. Of this step `messages.sent` are those, `delivered`
    those that arrived, `lost` those that did not, `doubled` those that came again though their reader was done."""

    within_s: Seconds = 600.0


class Disks(_Step, frozen=True, kw_only=True, tag="disks"):
    """The disks of some peers change."""

    share: Share = 1.0
    commit_s: Seconds = 0.0
    """How long each write takes."""
    full: bool = False
    damaged: bool = False
    """Who is restarted finds its file of durable messages damaged."""


class Crash(_Step, frozen=True, kw_only=True, tag="crash"):
    """Peers die at one moment, without a word."""

    share: Share


class Leave(_Step, frozen=True, kw_only=True, tag="leave"):
    """Peers say goodbye and go."""

    share: Share
    over_s: Seconds = 10.0


class Restart(_Step, frozen=True, kw_only=True, tag="restart"):
    """Those who crashed or left come back, from their saved state."""

    share: Share = 1.0
    over_s: Seconds = 30.0


class KillSeeds(_Step, frozen=True, kw_only=True, tag="kill-seeds"):
    """All seeds die, without a word."""


class Churn(_Step, frozen=True, kw_only=True, tag="churn"):
    """Peers go when their session is over, and for each that went another comes."""

    for_s: Seconds
    session: Session
    goodbyes: Share = 0.5
    """Of those who go; the others die without a word."""
    lookups_per_s: Annotated[float, Meta(ge=0, le=10_000)] = 0.0
    """In the whole network."""


class Partition(_Step, frozen=True, kw_only=True, tag="partition"):
    """The network falls apart; the seeds stay on the first side."""

    share: Share = 0.5
    """Of the peers, on the second side."""
    one_way: bool = False
    """What the second side sends still reaches the first."""


class Heal(_Step, frozen=True, kw_only=True, tag="heal"):
    """The sides are one again."""


class Set(_Step, frozen=True, kw_only=True, tag="set"):
    """The network's conditions change."""

    loss: Share | None = None
    duplication: Share | None = None
    reordering: Share | None = None


class Invade(_Step, frozen=True, kw_only=True, tag="invade"):
    """Hostile peers come; those of one step are one gang. They are not counted among the peers of the run, and nothing
    that they see is measured."""

    who: Kind
    share: Annotated[float, Meta(ge=0, lt=1)] | None = None
    """Of all that are then up, so many are hostile."""
    count: Count | None = None
    aim: Literal["nobody", "key", "victim"] = "nobody"
    """`key`: at the presence of somebody who is up; their ids are ground until each is nearer to it than any honest
    one. `victim`: at the node of somebody who is up."""
    aims: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """At so many of them; the gang shares them out evenly."""
    over_s: Seconds = 30.0
    """They come at moments drawn from this span."""
    dormant_s: Seconds = 0.0
    """After it they go on behaving like anybody for so long; then all turn at once, and the step ends."""
    subnets: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    """They share so many /24s; None: each has one of its own."""


Step = (
    Join
    | Wait
    | Update
    | Lookups
    | Messages
    | Arrive
    | Disks
    | Crash
    | Leave
    | Restart
    | KillSeeds
    | Churn
    | Partition
    | Heal
    | Set
    | Invade
)


class Network(_Strict, frozen=True, kw_only=True):
    """What all peers agree on."""

    k: Annotated[int, Meta(ge=1, le=64)] = 20
    record_life_s: Annotated[int, Meta(ge=60, le=7 * 86400)] = 7200
    local: bool = True
    """False: addresses are public ones, each host in a /24 of its own, and all limits towards strangers are on."""


class KnownFailure(_Strict, frozen=True, kw_only=True):
    """Where an expectation was seen not to hold, and what must be built until it does."""

    peers: int
    seed: int
    node: Literal["ours", "stock"] = "ours"
    level: Literal["node", "peer"] | None = None
    """None: the scenario's own."""
    issue: str


class Expect(_Strict, frozen=True, kw_only=True):
    """One expectation."""

    that: str
    """A measure: a path into the summary (`lookups.correct`, as a share with `_share`), or NAME.measure of one step."""
    is_: str = msgspec.field(name="is")
    """A comparison with a number: `>= 0.999`, `== 0`, `<= 2.5`."""
    why: str = ""
    known_to_fail: list[KnownFailure] = []


class Scenario(_Strict, frozen=True, kw_only=True):
    """One file."""

    question: str
    level: Literal["node", "peer"] = "peer"
    """Nodes of the DHT alone, or whole peers with links, and a seed."""
    peers: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    """Unless told otherwise."""
    seeds: Annotated[int, Meta(ge=0, le=16)] = 1
    """Seed servers, at level `peer`."""
    network: Network = Network()
    node: dict[str, Any] = {}
    """What is not as usual in honest nodes: fields of `DhtConfig`. A control switches a defence off here."""
    world: Conditions = msgspec.field(default_factory=Conditions)
    cpu: Effort | None = None
    """What datagrams cost those whom they reach; None: no time. Hostile hosts are as fast as need be."""
    skew_s: Annotated[float, Meta(ge=0, le=7 * 86400)] = 0.0
    """Each host's clock is wrong by at most so much, either way."""
    skewed: Share = 1.0
    """So many of the hosts have such a clock; those of the others are right."""
    sample_s: Annotated[float, Meta(gt=0)] = 10.0
    """Between two looks at the health of the network."""
    steps: Annotated[list[Step], Meta(min_length=1)]
    expect: list[Expect] = []

    @property
    def needs_peers(self) -> bool:
        """Whether nodes of the DHT alone cannot do it."""
        return any(isinstance(step, Messages | Arrive | Disks) for step in self.steps)

    @property
    def node_config(self) -> DhtConfig:
        """Of honest nodes. `ValidationError` of msgspec's if `node` has no such fields and types."""
        return msgspec.convert(self.node, DhtConfig)

    @property
    def needs_ours(self) -> bool:
        """Whether stock nodes cannot do it: hostile peers speak our protocol only."""
        return any(isinstance(step, Invade) for step in self.steps)


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison with a number."""

    operator: str
    number: float

    def holds(self, measured: float | None) -> bool:
        """Whether `measured` fulfils it; what was not measured fulfils nothing."""
        if measured is None:
            return False
        match self.operator:
            case ">=":
                return measured >= self.number
            case "<=":
                return measured <= self.number
            case ">":
                return measured > self.number
            case "<":
                return measured < self.number
            case _:
                return measured == self.number


_CONDITION = re.compile(r"\s*(>=|<=|==|>|<)\s*(-?[0-9]+(?:\.[0-9]+)?)\s*")


def condition(text: str) -> Condition:
    """Read the `is` of an expectation. Raises ValueError."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no comparison with a number, such as '>= 0.999'")
    return Condition(match[1], float(match[2]))
