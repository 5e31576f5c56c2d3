"""The house rules: what a file may import, and what those that decide must not touch.

Each rule reads the syntax tree of every file. Each has controls: a few lines that break it and must be found, and a few
that look alike and are allowed, so that no rule can be empty without anybody noticing.
"""

import ast
import builtins
import importlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"dht_atonce": ROOT, "atonce_seed": ROOT / "seed", "atonce_sim": ROOT / "simulations"}

# --- what the rules know ---

FLOORS = {
    "cli": 7,
    "dht_atonce": 6,  # dht_atonce/__init__.py, the contract
    "peer": 6,
    "membership": 5,
    "access": 5,
    "calls": 5,
    "durable": 5,
    "presence": 5,
    "rooms": 5,
    "streams": 5,
    "profile": 4,
    "staying": 4,
    "listening": 4,
    "discovery": 4,
    "messaging": 4,
    "dht": 3,
    "records": 2,
    "identity": 1,
    "endpoints": 1,
    "codec": 1,
    "cipher": 1,
    "clock": 1,
    "config": 1,
    "watchdog": 1,
    "datagrams": 1,
    "bulk": 1,
    "links": 1,
    "disk": 1,
    "host": 1,
    "memo": 1,
    "tasks": 1,
    "counters": 1,
    "errors": 0,
}
"""Floor of each module and subpackage of `dht_atonce` (docs: the table in architecture.md)."""

USES_UP_TO = {"atonce_seed": 4, "atonce_sim": 6}
"""The packages beside the floors, and the highest floor that they may use."""

USED_BY = {"atonce_seed": {"cli", "atonce_sim"}, "atonce_sim": {"cli"}}
"""Who may import the packages beside the floors. The virtual world runs seeds too."""

SIDEWAYS = {("discovery", "messaging")}
"""Imports between neighbours of one floor: the seed handshake runs over a link."""

MUTUAL_FLOOR = 1
"""The one floor whose modules may import each other."""

PURE = [
    "dht_atonce/config/*.py",
    "dht_atonce/memo.py",
    "dht_atonce/records/*.py",
    "dht_atonce/watchdog.py",
    "dht_atonce/messaging/refusals.py",
    *(f"dht_atonce/calls/{name}.py" for name in ("asking", "deadlines", "serving", "wire")),
    "dht_atonce/presence/sight.py",
    "dht_atonce/messaging/inflow.py",
    "dht_atonce/messaging/outflow.py",
    *(
        f"dht_atonce/dht/{name}.py"
        for name in (
            "buckets",
            "budget",
            "candidates",
            "contact",
            "cookies",
            "crowds",
            "density",
            "doubts",
            "gate",
            "handoff",
            "holders",
            "lookup",
            "operations",
            "origins",
            "own",
            "peers",
            "reach",
            "roster",
            "routing",
            "seat_check",
            "rtt",
            "sealing",
            "skew",
            "sorted_ids",
            "sources",
            "storage",
            "stretches",
            "topics",
            "turnover",
            "voices",
            "watches",
            "watching",
            "wire",
        )
    ),
    "dht_atonce/durable/courier.py",
    "dht_atonce/durable/intake.py",
    "dht_atonce/durable/wire.py",
    "dht_atonce/messaging/delivery.py",
    "dht_atonce/messaging/frames.py",
    *(f"dht_atonce/streams/{name}.py" for name in ("flow", "mux", "pace", "wire")),
    *(
        f"dht_atonce/rooms/{name}.py"
        for name in (
            "authors",
            "digests",
            "doorman",
            "entrance",
            "events",
            "gossip",
            "history",
            "hyparview",
            "machine",
            "numbers",
            "outbox",
            "plumtree",
            "roster",
            "signing",
            "vigil",
            "wire",
        )
    ),
    "seed/atonce_seed/directory.py",
    "seed/atonce_seed/handshake.py",
]
"""The files that decide: handed `now` and a `random.Random`, they do no I/O. Those that exist are held to it."""

IMPURE_MODULES = {"asyncio", "os", "secrets", "socket", "threading", "time", "uuid", "zmq"}
CLOCK_READS = {
    "time.monotonic",
    "time.monotonic_ns",
    "time.perf_counter",
    "time.perf_counter_ns",
    "time.time",
    "time.time_ns",
    "datetime.date.today",
    "datetime.datetime.now",
    "datetime.datetime.today",
    "datetime.datetime.utcnow",
}
OUTSIDE_WORLD = CLOCK_READS | {
    "nacl.bindings.crypto_box_keypair",
    "nacl.bindings.crypto_sign_keypair",
    "nacl.bindings.randombytes",
    "nacl.utils.random",
    "os.urandom",
    "random.SystemRandom",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "time.sleep",
    "uuid.uuid1",
    "uuid.uuid4",
}
"""What replay and tests cannot control, and therefore only the seams may call."""

SEAMS = [
    "dht_atonce/clock.py",
    "dht_atonce/host.py",
    "dht_atonce/bulk.py",
    "dht_atonce/datagrams.py",
    "dht_atonce/cli/*",
    "simulations/atonce_sim/escapes.py",  # guards the way out
    "simulations/atonce_sim/stopwatch.py",  # how long a run took in this world
]

ORDER_KEEPING = {"enumerate", "filter", "iter", "list", "map", "tuple", "zip"}
"""Callables whose result has the order of what they are given."""


# --- reading ---


class Source(NamedTuple):
    """One file."""

    path: str
    """From the root of the tree, with slashes."""
    text: str

    @property
    def module(self) -> str:
        """Its dotted name."""
        return self.path.removesuffix(".py").removeprefix("seed/").removeprefix("simulations/").replace("/", ".")

    @property
    def unit(self) -> str:
        return unit_of(self.module)

    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    def at(self, node: ast.AST, complaint: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {complaint}"


def unit_of(module: str) -> str:
    """What has a floor, or stands beside: `dht_atonce.dht.lookup` → `dht`, `atonce_seed.server` → `atonce_seed`."""
    package, _, rest = module.partition(".")
    unit = rest.partition(".")[0]
    return unit if package == "dht_atonce" and unit and unit != "__init__" else package


SOURCES = [
    Source(path.relative_to(ROOT).as_posix(), path.read_text())
    for name, folder in PACKAGES.items()
    for path in sorted((folder / name).rglob("*.py"))
]


def imports(source: Source) -> Iterator[tuple[ast.AST, str, str | None, str]]:
    """Each name that is imported, wherever in the file: (node, module, name in it or None, local name)."""
    package = source.module.removesuffix(".__init__").split(".")
    if not source.path.endswith("/__init__.py"):
        package.pop()
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name, None, alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node, module, alias.name, alias.asname or alias.name


def uses(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Each use of something imported, by its full name: with `import time as t`, `t.time()` gives `time.time`."""
    known: dict[str, str] = {}
    for node, module, name, local in imports(source):
        if name is not None:
            known[local] = f"{module}.{name}"
            yield node, known[local]
        else:
            known[local] = module if local != module.partition(".")[0] else local

    def full_name(node: ast.AST) -> str | None:
        if isinstance(node, ast.Name):
            return known.get(node.id)
        if isinstance(node, ast.Attribute):
            inner = full_name(node.value)
            return inner and f"{inner}.{node.attr}"
        return None

    for node in ast.walk(source.tree()):
        if name := full_name(node):
            yield node, name


def matches(source: Source, patterns: list[str]) -> bool:
    return any(fnmatch(source.path, pattern) for pattern in patterns)


# --- the rules: each gives what is wrong with one file ---

Rule = Callable[[Source], list[str]]


def keeps_to_its_floor(source: Source) -> list[str]:
    if source.unit not in FLOORS and source.unit not in USES_UP_TO:
        return [source.at(source.tree(), f"{source.unit!r} has no floor: give it one in FLOORS, tests/test_house.py")]
    found = []
    for node, module, name, _ in imports(source):
        if module.partition(".")[0] not in PACKAGES:
            continue
        target = unit_of(module)
        if module == "dht_atonce" and name in FLOORS:
            target = name  # from dht_atonce import errors
        if target not in FLOORS and target not in USES_UP_TO:
            found.append(source.at(node, f"{target!r} has no floor: give it one in FLOORS, tests/test_house.py"))
        elif not may_import(source.unit, target):
            found.append(source.at(node, f"{source.unit} must not import {target}"))
    return found


def may_import(importer: str, target: str) -> bool:
    if importer == target:
        return True
    if target in USED_BY:
        return importer in USED_BY[target]
    if importer in USES_UP_TO:
        return FLOORS[target] <= USES_UP_TO[importer]
    if importer == "dht_atonce":
        return FLOORS[target] <= FLOORS["dht_atonce"]
    if FLOORS[importer] == FLOORS[target]:
        return FLOORS[importer] == MUTUAL_FLOOR or (importer, target) in SIDEWAYS
    return FLOORS[importer] > FLOORS[target]


def decides_without_the_world(source: Source) -> list[str]:
    if not matches(source, PURE):
        return []
    found = [
        source.at(node, f"a file that decides must not import {module}")
        for node, module, _, _ in imports(source)
        if module.partition(".")[0] in IMPURE_MODULES
    ]
    for node, name in uses(source):
        if name in CLOCK_READS:
            found.append(source.at(node, f"a file that decides is handed `now`; it does not call {name}"))
        if name.startswith("random.") and name != "random.Random" and not name.startswith("random.Random."):
            found.append(source.at(node, f"a file that decides is handed a random.Random; it does not use {name}"))
    return found


def leaves_the_world_to_the_seams(source: Source) -> list[str]:
    if matches(source, SEAMS):
        return []
    found = []
    for node, name in uses(source):
        module_random = name.startswith("random.") and name[len("random.") :].islower()
        generates = name.startswith("nacl.") and name.endswith(".generate")
        if name in OUTSIDE_WORLD or name.startswith("secrets.") or module_random or generates:
            found.append(source.at(node, f"only the seams call {name}; take a clock or a random.Random as an argument"))
    if any(module.partition(".")[0] == "nacl" for _, module, _, _ in imports(source)):
        found += [
            source.at(node, "encrypt() without a nonce makes one of its own; hand it one")
            for node in ast.walk(source.tree())
            if isinstance(node, ast.Call) and makes_its_own_nonce(node)
        ]
    return found


def makes_its_own_nonce(call: ast.Call) -> bool:
    """Whether this looks like `SecretBox.encrypt(message)`, which draws a nonce from the system."""
    named = any(keyword.arg == "nonce" for keyword in call.keywords)
    return isinstance(call.func, ast.Attribute) and call.func.attr == "encrypt" and len(call.args) < 2 and not named


def prints_only_in_the_cli(source: Source) -> list[str]:
    if source.unit == "cli":
        return []
    return [
        source.at(node, "only cli/ prints")
        for node in ast.walk(source.tree())
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def defines_no_errors(source: Source) -> list[str]:
    if source.module == "dht_atonce.errors":
        return []
    own: set[str] = set()
    ours = {
        local
        for _, module, name, local in imports(source)
        if name and f"{module}.{name}".startswith("dht_atonce.errors.")
    }

    def is_error(base: ast.expr) -> bool:
        name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
        builtin = getattr(builtins, name, None)
        return (
            name in own
            or name in ours
            or name.endswith(("Error", "Exception"))
            or (isinstance(builtin, type) and issubclass(builtin, BaseException))
        )

    found = []
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.ClassDef) and any(is_error(base) for base in node.bases):
            own.add(node.name)
            found.append(source.at(node, f"{node.name} is an exception class; those are defined in errors.py"))
    return found


def is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return is_set(node.left) or is_set(node.right)
    called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    return isinstance(node, ast.Set | ast.SetComp) or called in ("set", "frozenset")


def keeps_order(called: ast.expr) -> bool:
    if isinstance(called, ast.Attribute):
        return called.attr in ("join", "extend")
    return isinstance(called, ast.Name) and called.id in ORDER_KEEPING


def takes_no_order_from_sets(source: Source) -> list[str]:
    # The order of a set of bytes or str changes with PYTHONHASHSEED, and with it the run of a simulation.
    if not matches(source, PURE):
        return []
    iterated: list[ast.expr] = []
    for node in ast.walk(source.tree()):
        if isinstance(node, ast.For | ast.comprehension):
            iterated.append(node.iter)
        elif isinstance(node, ast.Starred):
            iterated.append(node.value)
        elif isinstance(node, ast.Call) and keeps_order(node.func):
            iterated += node.args
    return [
        source.at(node, "the order of a set is not the same in each run; sort it, or use a dict")
        for node in iterated
        if is_set(node)
    ]


def says_what_is_public(source: Source) -> list[str]:
    name = source.path.rpartition("/")[2]
    if source.unit == "cli" or (name.startswith("_") and name != "__init__.py"):
        return []
    body = source.tree().body
    names = [t.id for node in body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)]
    only_a_docstring = name == "__init__.py" and all(isinstance(node, ast.Expr) for node in body)
    return [] if "__all__" in names or only_a_docstring else [source.at(source.tree(), "has no __all__")]


RULES: list[Rule] = [
    keeps_to_its_floor,
    decides_without_the_world,
    leaves_the_world_to_the_seams,
    prints_only_in_the_cli,
    defines_no_errors,
    takes_no_order_from_sets,
    says_what_is_public,
]


# --- the tests ---


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_file_keeps_the_rule(rule: Rule) -> None:
    broken = [complaint for source in SOURCES for complaint in rule(source)]
    assert not broken, "\n" + "\n".join(broken)


def test_the_rules_have_files_to_look_at() -> None:
    assert {source.module.partition(".")[0] for source in SOURCES} == set(PACKAGES)
    assert [source.path for source in SOURCES if matches(source, PURE)]
    assert [source.path for source in SOURCES if matches(source, SEAMS)]


LOOKUP = "dht_atonce/dht/lookup.py"
SERVER = "dht_atonce/dht/server.py"

BROKEN: list[tuple[Rule, str, str, str]] = [
    (keeps_to_its_floor, "dht_atonce/novelty.py", "", "'novelty' has no floor"),
    (keeps_to_its_floor, SERVER, "import dht_atonce.novelty", "'novelty' has no floor"),
    (keeps_to_its_floor, SERVER, "from dht_atonce.peer import Peer", "dht must not import peer"),
    (keeps_to_its_floor, SERVER, "from dht_atonce import Peer", "dht must not import dht_atonce"),
    (keeps_to_its_floor, SERVER, "from dht_atonce import messaging", "dht must not import messaging"),
    (keeps_to_its_floor, SERVER, "from ..peer import Peer", "dht must not import peer"),
    (keeps_to_its_floor, SERVER, "def f():\n    import dht_atonce.cli.main", "dht must not import cli"),
    (keeps_to_its_floor, "dht_atonce/dht/__init__.py", "from ..discovery import x", "dht must not import discovery"),
    (keeps_to_its_floor, "dht_atonce/messaging/a.py", "import dht_atonce.discovery.lan", "messaging must not"),
    (keeps_to_its_floor, "dht_atonce/codec.py", "from dht_atonce import records", "codec must not import records"),
    (keeps_to_its_floor, "dht_atonce/errors.py", "import dht_atonce.codec", "errors must not import codec"),
    (keeps_to_its_floor, "dht_atonce/__init__.py", "from dht_atonce.cli import main", "must not import cli"),
    (keeps_to_its_floor, "dht_atonce/peer.py", "from atonce_seed.server import Seed", "must not import atonce_seed"),
    (keeps_to_its_floor, "seed/atonce_seed/server.py", "import dht_atonce.peer", "atonce_seed must not import peer"),
    (keeps_to_its_floor, "seed/atonce_seed/server.py", "import atonce_sim", "must not import atonce_sim"),
    (keeps_to_its_floor, "simulations/atonce_sim/world.py", "import dht_atonce.cli", "must not import cli"),
    (decides_without_the_world, LOOKUP, "import asyncio", "must not import asyncio"),
    (decides_without_the_world, LOOKUP, "from os import path", "must not import os"),
    (decides_without_the_world, LOOKUP, "import zmq.asyncio", "must not import zmq"),
    (decides_without_the_world, LOOKUP, "import secrets, uuid", "must not import uuid"),
    (decides_without_the_world, LOOKUP, "import random\nrandom.shuffle([])", "random.shuffle"),
    (decides_without_the_world, LOOKUP, "import random as r\nr.SystemRandom()", "random.SystemRandom"),
    (decides_without_the_world, LOOKUP, "from random import choice", "random.choice"),
    (decides_without_the_world, LOOKUP, "from datetime import datetime as d\nd.now()", "datetime.datetime.now"),
    (leaves_the_world_to_the_seams, SERVER, "import time\ntime.monotonic()", "time.monotonic"),
    (leaves_the_world_to_the_seams, SERVER, "from time import time as now", "time.time"),
    (leaves_the_world_to_the_seams, SERVER, "import time\ntime.sleep(1)", "time.sleep"),
    (leaves_the_world_to_the_seams, SERVER, "import os as system\nsystem.urandom(8)", "os.urandom"),
    (leaves_the_world_to_the_seams, SERVER, "import secrets\nsecrets.token_bytes()", "secrets.token_bytes"),
    (leaves_the_world_to_the_seams, SERVER, "import random\nrandom.random()", "random.random"),
    (leaves_the_world_to_the_seams, SERVER, "import random\nf(default=random.SystemRandom)", "SystemRandom"),
    (leaves_the_world_to_the_seams, SERVER, "import socket\nsocket.getaddrinfo('', 0)", "getaddrinfo"),
    (leaves_the_world_to_the_seams, SERVER, "import nacl.utils\nnacl.utils.random(24)", "nacl.utils.random"),
    (
        leaves_the_world_to_the_seams,
        SERVER,
        "from nacl.public import PrivateKey\nPrivateKey.generate()",
        "nacl.public.PrivateKey.generate",
    ),
    (leaves_the_world_to_the_seams, SERVER, "import nacl.secret\nbox.encrypt(data)", "without a nonce"),
    (prints_only_in_the_cli, SERVER, "print('here')", "only cli/ prints"),
    (defines_no_errors, SERVER, "class Odd(ValueError): ...", "Odd is an exception class"),
    (defines_no_errors, SERVER, "import zmq\nclass Odd(zmq.ZMQError): ...", "Odd is an exception class"),
    (defines_no_errors, SERVER, "class Odd(KeyboardInterrupt): ...", "Odd is an exception class"),
    (
        defines_no_errors,
        SERVER,
        "from dht_atonce.errors import PeerOffline\nclass Odd(PeerOffline): ...",
        "Odd is an exception class",
    ),
    (takes_no_order_from_sets, LOOKUP, "for x in {1, 2}: ...", "the order of a set"),
    (takes_no_order_from_sets, LOOKUP, "for x in set(y): ...", "the order of a set"),
    (takes_no_order_from_sets, LOOKUP, "[x for x in frozenset(y) - set(z)]", "the order of a set"),
    (takes_no_order_from_sets, LOOKUP, "list({x for x in y})", "the order of a set"),
    (takes_no_order_from_sets, LOOKUP, "z = [*set(y)]", "the order of a set"),
    (takes_no_order_from_sets, LOOKUP, "b''.join(set(y))", "the order of a set"),
    (says_what_is_public, SERVER, "class Server: ...", "has no __all__"),
    (says_what_is_public, "dht_atonce/__init__.py", "from dht_atonce.peer import Peer", "has no __all__"),
]

ALLOWED: list[tuple[Rule, str, str]] = [
    (keeps_to_its_floor, SERVER, "import asyncio, kademlia.network\nfrom dht_atonce.dht.lookup import Lookup"),
    (keeps_to_its_floor, SERVER, "from .lookup import Lookup\nfrom . import lookup\nfrom dht_atonce import errors"),
    (keeps_to_its_floor, "dht_atonce/host.py", "from dht_atonce.clock import Clock"),
    (keeps_to_its_floor, "dht_atonce/discovery/seeds.py", "from dht_atonce.messaging.curve import CurveNet"),
    (keeps_to_its_floor, "dht_atonce/__init__.py", "from dht_atonce.peer import Peer"),
    (keeps_to_its_floor, "dht_atonce/cli/seed.py", "import atonce_seed, atonce_sim\nfrom dht_atonce import Peer"),
    (keeps_to_its_floor, "simulations/atonce_sim/world.py", "import atonce_seed, dht_atonce.peer"),
    (decides_without_the_world, LOOKUP, "import random\ndef f(rng: random.Random): rng.choice([1])"),
    (decides_without_the_world, LOOKUP, "from random import Random\nRandom(7).random()"),
    (decides_without_the_world, SERVER, "import asyncio"),
    (leaves_the_world_to_the_seams, "dht_atonce/clock.py", "import time\ntime.time()"),
    (leaves_the_world_to_the_seams, SERVER, "import random\nrandom.Random(7).random()\nself.time.time()"),
    (leaves_the_world_to_the_seams, SERVER, "import nacl.secret\nbox.encrypt(data, nonce)"),
    (leaves_the_world_to_the_seams, SERVER, "from dht_atonce.identity import Identity\nIdentity.generate(rng)"),
    (prints_only_in_the_cli, "dht_atonce/cli/main.py", "print('here')"),
    (defines_no_errors, "dht_atonce/errors.py", "class Odd(ValueError): ..."),
    (defines_no_errors, SERVER, "class ErrorCounter(dict): ..."),
    (takes_no_order_from_sets, LOOKUP, "for x in sorted(set(y)): ...\nx = {1} | set(y)\nlen(set(y))"),
    (takes_no_order_from_sets, SERVER, "for x in {1, 2}: ..."),
    (says_what_is_public, SERVER, "__all__ = []"),
    (says_what_is_public, "dht_atonce/dht/__init__.py", '"""The DHT."""'),
    (says_what_is_public, "dht_atonce/cli/main.py", "def main(): ..."),
]


@pytest.mark.parametrize(("rule", "path", "text", "complaint"), BROKEN)
def test_a_file_that_breaks_the_rule_is_found(rule: Rule, path: str, text: str, complaint: str) -> None:
    assert complaint in "\n".join(rule(Source(path, text)))


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_a_file_that_only_looks_like_it_is_not(rule: Rule, path: str, text: str) -> None:
    assert rule(Source(path, text)) == []


def test_every_rule_has_controls() -> None:
    assert {rule for rule, *_ in BROKEN} == set(RULES)
    assert {rule for rule, *_ in ALLOWED} == set(RULES)


PUBLIC = [s.module.removesuffix(".__init__") for s in SOURCES if s.unit != "cli"]


@pytest.mark.parametrize("module", PUBLIC)
def test_what_all_names_exists(module: str) -> None:
    namespace = importlib.import_module(module)
    names = getattr(namespace, "__all__", [])
    assert [name for name in names if not hasattr(namespace, name)] == []
    assert len(names) == len(set(names))


def test_the_contract_is_sorted() -> None:
    """In the order that ruff's RUF022 keeps everywhere: constants, classes, functions."""

    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    contract = importlib.import_module("dht_atonce").__all__
    assert contract == sorted(contract, key=rank)
