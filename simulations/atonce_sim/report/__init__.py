"""Reports of runs: one page that needs nothing else, and CSV files beside it."""

from pathlib import Path

from atonce_sim.results import Run
from dht_atonce.errors import ConfigError

__all__ = ["write_report"]


def write_report(runs: list[Run], folder: Path) -> Path:
    """Write `index.html` and the CSV files of `runs` into `folder`; gives the page. The same runs give the same bytes.

    Raises `ConfigError` without any run, OSError for a folder that cannot be written.
    """
    if not runs:
        raise ConfigError("a report needs at least one run; `atonce sim run NAME --save DIR` keeps one")
    from atonce_sim.report.page import page
    from atonce_sim.report.tables import tables

    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tables(runs).items():
        (folder / name).write_text(text, encoding="utf-8")
    path = folder / "index.html"
    path.write_text(page(runs), encoding="utf-8")
    return path
