"""What is installed is what stands in pyproject.toml, and nothing else."""

import importlib.metadata
import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"dht_atonce", "atonce_seed", "atonce_sim"}
INSTALLED = importlib.metadata.distribution("dht-atonce")


def test_the_version_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert INSTALLED.version == project["version"]
    assert importlib.metadata.version("dht-atonce") == project["version"]


def test_only_our_three_packages_are_put_into_site_packages() -> None:
    # A top-level module named `seed` or `tests` would be in the way of other people's.
    assert set((INSTALLED.read_text("top_level.txt") or "").split()) == PACKAGES


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_each_package_is_typed(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").is_file()


def test_the_command_is_installed() -> None:
    commands = {point.name: point.value for point in INSTALLED.entry_points if point.group == "console_scripts"}
    assert commands == {"atonce": "dht_atonce.cli.main:main"}
