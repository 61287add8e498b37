"""Hundreds of kills of the sample pipeline at random moments, and how many faults they left.

    python benchmarks/chaos.py --kills 200 --seed 1

Every kill starts from a copy of the same folder, with two pushed models and one that missed a bound. The process group
gets SIGKILL in a phase chosen at random; then every command that reads is asked, the same command runs again, and
everything is asked once more. `tests/helpers/chaos.py` says what must be true.

`docs/benchmarks.md` has the figures.
"""

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers.chaos import Chaos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default="run,rollback,bless,gc", help="in turn, separated by commas")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder, "pipeline"), args.seed)
        commands = args.commands.split(",")
        moments = {command: chaos.rehearse(command) for command in commands}
        faults = chaos.counts.faults
        try:
            for number, command in zip(range(1, args.kills + 1), itertools.cycle(commands), strict=False):
                before = len(faults)
                chaos.kill(command, moments[command])
                print(f"{number}/{args.kills}  {command}  {len(faults)} faults", *faults[before:], sep="\n", flush=True)
        finally:  # print the counts of an interrupted benchmark, too
            print(chaos.counts.table(), flush=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
