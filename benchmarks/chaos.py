"""Kill the sample pipeline hundreds of times at random moments, and count the faults that follow.

    python benchmarks/chaos.py --kills 200 --seed 1

Every kill starts from a copy of the same folder, with two pushed models and one that missed a bound. The process group
gets SIGKILL in a random phase. Then every command that only reads is run, the killed command is run again, and the
commands that read are run once more. `tests/helpers/chaos.py` defines what must be true.

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
    """Run the kills and print the table of faults. Exits with 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="number of kills")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    parser.add_argument(
        "--commands", default="run,rollback,bless,gc", help="commands to kill in turn, separated by commas"
    )
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
