"""One target under atheris: libFuzzer chooses mutants by the lines of Python that they reach.

    python -m fuzz.guided TARGET SECONDS FOLDER

A process of its own for each target, since libFuzzer ends the process. It prints how many inputs there were, and leaves
an input that raised in FOLDER under a name that `python -m fuzz replay` understands.
"""

import sys
from pathlib import Path

import atheris

__all__ = ["main"]

with atheris.instrument_imports(include=["dht_atonce", "atonce_seed"]):
    from fuzz.mutation import MAX_INPUT
    from fuzz.targets import make


def main(name: str, time_s: int, folder: Path) -> None:
    """Does not return."""
    target = make(name)
    corpus = folder / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.corpus):
        (corpus / f"seed-{number}").write_bytes(data[:MAX_INPUT])
    options = [f"-max_total_time={time_s}", f"-max_len={MAX_INPUT}", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup(["fuzz", *options, f"-artifact_prefix={folder}/{name}-", str(corpus)], target.feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
