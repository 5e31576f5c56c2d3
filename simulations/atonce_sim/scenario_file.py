"""Reading a scenario: a mistake is told with its line and what was expected there."""

import re
import tomllib
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from atonce_sim.hostile.kinds import aims_of
from atonce_sim.measures import RUN_FIGURES, STEP_FIGURES
from atonce_sim.scenario import Arrive, Churn, Disks, Invade, Lookups, Messages, Scenario, condition
from dht_atonce.config import DhtConfig
from dht_atonce.errors import ConfigError

__all__ = ["library", "load_scenario", "read_scenario"]

_PATH = re.compile(r" - at `(?:key in )?\$?([^`]*)`")
_PART = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+|\.\.\.)\]")
_CLOSINGS = ("", "]", "]]", '"""', "'''")  # what may be open at the end of a line


def library() -> dict[str, str]:
    """The scenarios that come with @Once: name → text of the file."""
    folder = resources.files("atonce_sim") / "scenarios"
    files = {file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")}
    return {name: files[name].read_text(encoding="utf-8") for name in sorted(files)}


def load_scenario(name_or_path: str) -> tuple[str, Scenario]:
    """Name and content of a scenario of the library, or of a file. Raises `ConfigError`."""
    path = Path(name_or_path)
    if path.suffix == ".toml":
        try:
            return path.stem, read_scenario(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is no text in UTF-8") from None
    known = library()
    if name_or_path not in known:
        names = ", ".join(known)
        raise ConfigError(
            f"there is no scenario {name_or_path!r}; there are {names}, or give a file that ends in .toml"
        )
    return name_or_path, read_scenario(known[name_or_path], f"{name_or_path}.toml")


def read_scenario(text: str, source: str) -> Scenario:
    """Read the text of a scenario; `source` names it in errors. Raises `ConfigError`."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: this is not TOML: {error}") from None
    try:
        scenario = msgspec.convert(raw, Scenario)
    except msgspec.ValidationError as error:
        words = str(error)
        found = _PATH.search(words)
        path = _parts(found[1]) if found else []
        words = _PATH.sub("", words)
        if named := re.search(r"unknown field `([^`]*)`", words):
            words += f": Expected {_names(field.encode_name for field in _fields_at(raw, path))}"
            path.append(named[1])
        elif words.startswith("Invalid value "):  # of what tells one kind of table from another
            words += f": Expected {_names(str(kind.tag) for kind in _structs_at(raw, path[:-1]))}"
        elif words.startswith("Invalid enum value "):
            kinds = (field.type for field in _fields_at(raw, path[:-1]) if field.encode_name == path[-1])
            words += f": Expected {_names(value for kind in kinds for value in _values(kind))}"
        raise ConfigError(_at(source, text, path, words)) from None
    _check(scenario, text, source)
    return scenario


def _check(scenario: Scenario, text: str, source: str) -> None:
    """What types cannot say."""
    known_fields = [field.name for field in fields(DhtConfig)]
    for name in scenario.node:
        if name not in known_fields:
            words = f"unknown field `{name}`: Expected {_names(iter(known_fields))}"
            raise ConfigError(_at(source, text, ["node", name], words))
    try:
        scenario.node_config  # noqa: B018 # it is made to see whether it can be
    except msgspec.ValidationError as error:
        found = _PATH.search(str(error))
        path = ["node", *(_parts(found[1]) if found else [])]
        raise ConfigError(_at(source, text, path, _PATH.sub("", str(error)))) from None
    _check_invasions(scenario, text, source)
    for index, step in enumerate(scenario.steps):
        if isinstance(step, Lookups | Messages) and (step.count is None) == (step.per_peer is None):
            words = f"Expected one of `count` and `per_peer` in a step of {type(step).__name__.lower()}"
            raise ConfigError(_at(source, text, ["steps", index], words))
        if isinstance(step, Messages | Arrive | Disks) and scenario.level == "node":
            words = 'Expected `level = "peer"`: nodes of the DHT alone send no messages'
            raise ConfigError(_at(source, text, ["steps", index], words))
        if isinstance(step, Churn) and step.for_s < scenario.sample_s:
            words = f"Expected a churn no shorter than `sample_s` ({scenario.sample_s:g})"
            raise ConfigError(_at(source, text, ["steps", index, "for_s"], words))
    for index, expect in enumerate(scenario.expect):
        try:
            condition(expect.is_)
        except ValueError as error:
            raise ConfigError(_at(source, text, ["expect", index, "is"], f"Expected a condition: {error}")) from None
        named = [step.name for step in scenario.steps if step.name and expect.that.startswith(f"{step.name}.")]
        known, figure = RUN_FIGURES, expect.that
        if expect.that not in known and named:
            known, figure = STEP_FIGURES, expect.that.removeprefix(f"{max(named, key=len)}.")
        if figure not in known:
            words = f"Expected a figure, or NAME.figure of a step with that name, not `{expect.that}`; figures are "
            raise ConfigError(_at(source, text, ["expect", index, "that"], words + ", ".join(sorted(known))))


def _check_invasions(scenario: Scenario, text: str, source: str) -> None:
    """Who comes, at whom they aim, and whether there is anybody to aim at."""
    aims = set[str]()
    for index, step in enumerate(scenario.steps):
        where: list[Any] = ["steps", index]
        if isinstance(step, Lookups):
            if step.of == "aimed" and "key" not in aims:
                words = 'Expected an `invade` with `aim = "key"` before lookups of what is aimed at'
                raise ConfigError(_at(source, text, [*where, "of"], words))
            if step.by == "victims" and "victim" not in aims:
                words = 'Expected an `invade` with `aim = "victim"` before lookups by victims'
                raise ConfigError(_at(source, text, [*where, "by"], words))
        if not isinstance(step, Invade):
            continue
        if (step.count is None) == (step.share is None):
            raise ConfigError(_at(source, text, where, "Expected one of `count` and `share` in a step of invade"))
        wanted = aims_of(step.who)
        if step.aim not in wanted:
            words = f"Expected {_names(iter(wanted))} as the aim of `{step.who.__struct_config__.tag}`"
            raise ConfigError(_at(source, text, [*where, "aim"], words))
        if step.subnets is not None and scenario.network.local:
            words = "Expected `local = false` in [network]: in a local network nobody counts subnets"
            raise ConfigError(_at(source, text, [*where, "subnets"], words))
        aims.add(step.aim)


def _parts(path: str) -> list[Any]:
    """`.steps[1].over_s` → ["steps", 1, "over_s"]."""
    return [name or (int(index) if index.isdigit() else 0) for name, index in _PART.findall(path)]


def _at(source: str, text: str, path: list[Any], words: str) -> str:
    line = _line_of(text, path)
    where = ".".join(f"{part + 1}" if isinstance(part, int) else str(part) for part in path)
    return f"{source}, line {line}{f' ({where})' if where else ''}: {words}"


def _line_of(text: str, path: list[Any]) -> int:
    """The line that says what stands at `path`, or the first that opens what is round it."""
    lines = text.split("\n")

    def depth(count: int) -> int:
        """How much of the path the first lines say."""
        for end in range(count, 0, -1):
            begin = "\n".join([*lines[:end], ""])
            for closing in _CLOSINGS:
                try:
                    here: Any = tomllib.loads(begin + closing)
                except tomllib.TOMLDecodeError:
                    continue
                for number, part in enumerate(path):
                    try:
                        here = here[part]
                    except (LookupError, TypeError):
                        return number
                return len(path)
        return 0

    return max(1, bisect_left(range(len(lines) + 1), depth(len(lines)), key=depth))


# --- what was expected ---


def _structs_at(raw: Any, path: list[Any]) -> list[inspect.StructType]:
    """The kinds of table of which one may stand at `path`."""
    kinds = _structs(inspect.type_info(Scenario))
    for part in path:
        if isinstance(part, str):
            kinds = [
                struct for field in _fields(raw, kinds) if field.encode_name == part for struct in _structs(field.type)
            ]
        raw = raw[part]
    return kinds


def _fields_at(raw: Any, path: list[Any]) -> list[inspect.Field]:
    kinds = _structs_at(raw, path)
    for part in path:
        raw = raw[part]
    return _fields(raw, kinds)


def _fields(raw: Any, kinds: list[inspect.StructType]) -> list[inspect.Field]:
    """The keys that the table `raw` may have: those of its kind, its tag among them."""
    fields: list[inspect.Field] = []
    for kind in kinds:
        if len(kinds) == 1 or raw.get(kind.tag_field) == kind.tag:
            fields += kind.fields
    return fields


def _structs(info: inspect.Type) -> list[inspect.StructType]:
    """All kinds of table in a type."""
    match info:
        case inspect.StructType():
            return [info]
        case inspect.UnionType():
            return [struct for one in info.types for struct in _structs(one)]
        case inspect.ListType():
            return _structs(info.item_type)
        case inspect.Metadata():
            return _structs(info.type)
        case _:
            return []


def _values(info: inspect.Type) -> list[str]:
    """All words that a type allows."""
    match info:
        case inspect.LiteralType():
            return [str(value) for value in info.values]
        case inspect.UnionType():
            return [value for one in info.types for value in _values(one)]
        case _:
            return []


def _names(names: Iterator[str]) -> str:
    return "one of " + ", ".join(f"`{name}`" for name in names)
