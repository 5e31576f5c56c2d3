"""`make fuzz TIME=600`, or by hand:

    python -m fuzz run --time 600                       all targets, then the forgeries
    python -m fuzz run --time 60 --target reply         one of them
    python -m fuzz run --inputs 10000000 --time 86400   until so many inputs were fed in all
    python -m fuzz replay fuzz/found/reply-1f2e.bin     once more, with its traceback

Ends with 1 if anything raised that must not, or a forgery was believed.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from fuzz import forgery
from fuzz.runner import Outcome, replay, run, save
from fuzz.targets import TARGETS

FOUND = Path(__file__).parent / "found"
_FORGERIES = 1_000_000
_CONTROL = 20_000
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s+(\d+)")


def main() -> int:
    arguments = _arguments()
    if arguments.command == "replay":
        replay(arguments.file)
        print("nothing was raised")
        return 0
    names = [arguments.target] if arguments.target else list(TARGETS)
    guided = arguments.engine != "mutation" and importlib.util.find_spec("atheris") is not None
    if arguments.engine == "atheris" and not guided:
        print("atheris is not installed: pip install atheris (Linux, Python up to 3.13)", file=sys.stderr)
        return 2
    both = guided and arguments.engine == "auto"
    share_s = arguments.time / len(names) / (2 if both else 1)
    most = arguments.inputs // len(names) if arguments.inputs else None
    failed, total, spent_s = False, 0, 0.0
    for name in names:
        outcomes = []
        if not guided or both:
            outcomes.append(("structured", run(name, arguments.seed, share_s, most)))
        if guided:
            outcomes.append(("coverage-guided", _guided(name, max(1, round(share_s)))))
        for engine, outcome in outcomes:
            total += outcome.inputs
            spent_s += outcome.elapsed_s
            failed |= _tell(engine, outcome)
    print(f"{total:,} inputs in {spent_s:.0f} s, {total / spent_s:,.0f} a second; 10,000,000 take", end=" ")
    print(f"{10_000_000 / (total / spent_s) / 60:.0f} minutes")
    if not arguments.target:
        failed |= _forge(arguments.forgeries, arguments.seed)
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Bad input for everything that parses bytes.")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--time", type=float, default=600, help="seconds for all targets together")
    running.add_argument("--inputs", type=int, help="end when so many were fed (structured mutants only)")
    running.add_argument("--target", choices=list(TARGETS))
    running.add_argument("--engine", choices=("auto", "atheris", "mutation"), default="auto")
    running.add_argument("--seed", type=int, default=1)
    running.add_argument("--forgeries", type=int, default=_FORGERIES)
    commands.add_parser("replay").add_argument("file", type=Path)
    return parser.parse_args()


def _guided(name: str, time_s: int) -> Outcome:
    FOUND.mkdir(exist_ok=True)
    artifacts = FOUND / "atheris"
    done = subprocess.run(  # ourselves
        [sys.executable, "-m", "fuzz.guided", name, str(time_s), str(artifacts)],
        capture_output=True,
        text=True,
        check=False,
        cwd=FOUND.parent.parent,
    )
    executed = _EXECUTED.search(done.stderr)
    found = []
    for path in sorted(artifacts.glob(f"{name}-*")):
        found.append((path.read_bytes(), done.stderr[-1000:]))
        path.unlink()
    if done.returncode and not found:
        found = [(b"", done.stderr[-1000:])]
    return Outcome(name, int(executed[1]) if executed else 0, time_s, found)


def _tell(engine: str, outcome: Outcome) -> bool:
    rate = outcome.inputs / outcome.elapsed_s if outcome.elapsed_s else 0
    print(f"{outcome.target:14} {engine:16} {outcome.inputs:>11,} inputs {rate:>9,.0f}/s {len(outcome.found)} found")
    if outcome.found:
        for path, (_, what) in zip(save(outcome.found, outcome.target, FOUND), outcome.found, strict=True):
            print(f"    {what}\n    python -m fuzz replay {path}")
    sys.stdout.flush()
    return bool(outcome.found)


def _forge(mutants: int, seed: int) -> bool:
    real = forgery.run(mutants, seed)
    control = forgery.run(min(mutants, _CONTROL), seed, checks_signatures=False)
    print(f"forgeries: {real.accepted} of {real.mutants:,} believed; {dict(real.refused.most_common())}")
    print(f"control, signature check off: {control.accepted:,} of {control.mutants:,} believed")
    return bool(real.accepted) or not control.accepted


if __name__ == "__main__":
    sys.exit(main())
