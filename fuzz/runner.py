"""Feeds a target with one mutant after the other, until the time or the number is over, or something was found."""

import hashlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fuzz.mutation import Mutator
from fuzz.targets import TARGETS, make

__all__ = ["Outcome", "replay", "run", "save"]

_LOOK_AT_CLOCK = 256  # inputs between two looks


class Outcome(NamedTuple):
    """What came of one run over one target."""

    target: str
    inputs: int
    elapsed_s: float
    found: list[tuple[bytes, str]]
    """Inputs that raised, and what."""


def run(name: str, seed: int, time_s: float, max_inputs: int | None = None, max_found: int = 5) -> Outcome:
    """Feed the target `name` with mutants of its corpus. The same seed and number of inputs give the same run."""
    target = make(name)
    mutator = Mutator(random.Random(f"{seed}/{name}"), target.corpus)
    found: list[tuple[bytes, str]] = []
    began = time.monotonic()
    inputs = 0
    for data in target.corpus:
        _feed(target.feed, data, found)
        inputs += 1
    while len(found) < max_found and (max_inputs is None or inputs < max_inputs):
        if inputs % _LOOK_AT_CLOCK == 0 and time.monotonic() - began >= time_s:
            break
        _feed(target.feed, mutator.next(), found)
        inputs += 1
    elapsed_s = time.monotonic() - began
    target.close()
    return Outcome(name, inputs, elapsed_s, found)


def _feed(feed: Callable[[bytes], None], data: bytes, found: list[tuple[bytes, str]]) -> None:
    try:
        feed(data)
    except Exception as error:
        found.append((data, f"{type(error).__name__}: {error}"))


def save(found: list[tuple[bytes, str]], name: str, folder: Path) -> list[Path]:
    """Write each input to a file whose name `replay` understands."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for data, _ in found:
        path = folder / f"{name}-{hashlib.blake2b(data, digest_size=4).hexdigest()}.bin"
        path.write_bytes(data)
        paths.append(path)
    return paths


def replay(path: Path) -> None:
    """Feed a saved input to the target in its name; what it raises is not caught."""
    named = [name for name in TARGETS if path.name.startswith(f"{name}-")]
    if not named:
        raise ValueError(f"{path.name} does not begin with the name of a target")
    target = make(max(named, key=len))
    try:
        target.feed(path.read_bytes())
    finally:
        target.close()
