"""Reading a scenario: a mistake is told with its line and what was expected there."""

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from atonce_sim.scenario import Churn, Lookups, Messages, Scenario, condition
from dht_atonce.errors import ConfigError

__all__ = ["library", "load_scenario", "read_scenario"]

_PATH = re.compile(r" - at `(?:key in )?\$?([^`]*)`")
_PART = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+|\.\.\.)\]")


def library() -> dict[str, str]:
    """The scenarios that come with @Once: name → text of the file."""
    folder = resources.files("atonce_sim") / "scenarios"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


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
        named = re.search(r"unknown field `([^`]*)`", words)
        if named:
            path.append(named[1])
        raise ConfigError(_at(source, text, path, _PATH.sub("", words))) from None
    _check(scenario, text, source)
    return scenario


def _check(scenario: Scenario, text: str, source: str) -> None:
    """What types cannot say."""
    for index, step in enumerate(scenario.steps):
        if isinstance(step, Lookups | Messages) and (step.count is None) == (step.per_peer is None):
            words = f"Expected one of `count` and `per_peer` in a step of {type(step).__name__.lower()}"
            raise ConfigError(_at(source, text, ["steps", index], words))
        if isinstance(step, Messages) and scenario.level == "node":
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


def _parts(path: str) -> list[Any]:
    """`.steps[1].over_s` → ["steps", 1, "over_s"]."""
    return [name or (int(index) if index.isdigit() else 0) for name, index in _PART.findall(path)]


def _at(source: str, text: str, path: list[Any], words: str) -> str:
    line = _line_of(text, path)
    where = ".".join(f"{part + 1}" if isinstance(part, int) else str(part) for part in path)
    return f"{source}, line {line}{f' ({where})' if where else ''}: {words}"


def _line_of(text: str, path: list[Any]) -> int:
    """The line that says what stands at `path`, or the last one that opens a table round it."""
    best_line, best_depth = 1, 0
    table: list[Any] = []
    counts: dict[str, int] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if header := re.match(r"\[\[\s*([\w.-]+)\s*\]\]", line):
            counts[header[1]] = counts.get(header[1], -1) + 1
            table = [*header[1].split("."), counts[header[1]]]
            here = table
        elif header := re.match(r"\[\s*([\w.-]+)\s*\]", line):
            here = table = list(header[1].split("."))
        elif key := re.match(r"([\w.-]+|\"[^\"]*\")\s*=", line):
            here = [*table, *key[1].strip('"').split(".")]
        else:
            continue
        depth = len(here) if here == path[: len(here)] else 0
        if depth > best_depth:
            best_line, best_depth = number, depth
    return best_line
