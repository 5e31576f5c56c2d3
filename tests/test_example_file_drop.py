"""examples/file_drop.py as processes."""

import sys
from pathlib import Path

from cli_support import Process, seed

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "file_drop.py"


def test_a_file_is_dropped_into_a_folder(tmp_path: Path) -> None:
    folder, path = tmp_path / "drop", tmp_path / "notes.txt"
    folder.mkdir()
    path.write_text("what I wanted to give you")
    run = [sys.executable, str(EXAMPLE)]
    with seed(tmp_path / "seed") as entry, Process(entry.url, folder, command=run) as taker:
        peer = taker.line().split()[-1].decode()
        with Process(entry.url, path, "--to", peer, command=run) as dropper:
            assert dropper.line() == b"notes.txt 25 bytes are there\n"
            assert dropper.ends().code == 0
        assert taker.line().endswith(b"notes.txt 25 bytes\n")
        assert (folder / "notes.txt").read_text() == "what I wanted to give you"
