"""The kinds of hostile peers and their options, as a scenario names them."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = [
    "Blackhole",
    "Eclipse",
    "Flooder",
    "Forger",
    "Hoarder",
    "Kind",
    "Liar",
    "Redirect",
    "Reflector",
    "Stuffer",
    "Sybil",
    "aims_of",
]

Seconds = Annotated[float, Meta(gt=0, le=7 * 86400)]
Rate = Annotated[float, Meta(gt=0, le=1_000_000)]
Count = Annotated[int, Meta(ge=1, le=10_000_000)]


class _Kind(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What one gang does."""


class Sybil(_Kind, frozen=True, kw_only=True, tag="sybil"):
    """Whoever asks about an aimed key is told of fellows only, and never gets the record, which all of them took.
    Towards everybody else they are the best of neighbours."""


class Eclipse(_Kind, frozen=True, kw_only=True, tag="eclipse"):
    """Very many ids knock at one victim, prove their addresses and want seats. Once seated they name fellows only."""

    knocks_s: Seconds = 60.0
    """Between two knocks of one id, so that it stays fresh."""


class Forger(_Kind, frozen=True, kw_only=True, tag="forger"):
    """Answers each search for a record with a false one."""

    gives: Literal["any", "tampered", "signed-by-us", "other-key", "old", "noise"] = "any"
    """A genuine record with other bytes in it; the owner's words under a signature of ours; a genuine record of another
    key; the oldest genuine one that was ever seen; random bytes. `any`: each answer another."""


class Blackhole(_Kind, frozen=True, kw_only=True, tag="blackhole"):
    """Takes its seats, then answers nothing, while it goes on asking: so that tables take it for alive."""

    answers: Literal["nothing", "pings"] = "nothing"
    knocks_s: Seconds = 30.0
    """Between two knocks at all whom it knows."""


class Liar(_Kind, frozen=True, kw_only=True, tag="liar"):
    """Answers each question for contacts or a record with false contacts."""

    names: Literal["any", "dead", "moved", "fellows", "nothing"] = "any"
    """Ids nearer than all others at addresses where nobody is; honest nodes at such addresses; fellows only; nobody.
    `any`: each answer another."""
    clock_s: Annotated[float, Meta(ge=-1e9, le=1e9)] = 0.0
    """By how much it says its clock differs."""


class Hoarder(_Kind, frozen=True, kw_only=True, tag="hoarder"):
    """Says that it stored what it was given, and never gives it; the contacts that it names are true."""


class Redirect(_Kind, frozen=True, kw_only=True, tag="redirect"):
    """Names one outsider's address, under ever other ids nearer than all others, to everybody who asks."""


class Flooder(_Kind, frozen=True, kw_only=True, tag="flooder"):
    """Sends packets to its victims, as fast as it can."""

    per_s: Rate
    for_s: Seconds
    source: Literal["spoofed", "own"] = "spoofed"
    """Addresses of its packets: another for each, where nobody is; or its own."""
    packets: Literal["noise", "sealed"] = "noise"
    """Boxes that cannot be opened, which costs the victim as much to find out; or requests under a new key each."""


class Reflector(_Kind, frozen=True, kw_only=True, tag="reflector"):
    """Asks everybody in the name of an outsider's address, whatever gives the longest answer for the shortest
    question."""

    per_s: Rate
    for_s: Seconds


class Stuffer(_Kind, frozen=True, kw_only=True, tag="stuffer"):
    """Stores genuine records of its own at the nodes nearest to the aimed key, each nearer to its node than the key is:
    so that they take the place of the key's own."""

    puts: Count
    """By each member, at each of those nodes."""
    per_s: Rate = 200.0
    """At each."""
    nodes: Annotated[int, Meta(ge=1, le=1000)] = 20
    """At so many."""
    grind: Annotated[int, Meta(ge=0, le=20)] = 10
    """How many leading bits of a node's id its records share: each bit costs it twice as many names to try."""


Kind = Sybil | Eclipse | Forger | Blackhole | Liar | Hoarder | Redirect | Flooder | Reflector | Stuffer


def aims_of(kind: Kind) -> tuple[str, ...]:
    """What a gang of `kind` may aim at: `nobody`, a `key`, a `victim`."""
    match kind:
        case Sybil():
            return ("key",)
        case Eclipse() | Flooder():
            return ("victim",)
        case Stuffer():
            return ("key", "victim")
        case Reflector():
            return ("nobody",)
        case _:
            return ("nobody", "key")
