"""Start the command, if the package `pipeline` that Python finds is ours: another on PYTHONPATH may hide it."""

import importlib.util
import sys
from pathlib import Path


def main() -> None:
    """Run the `vitpipe` command."""
    ours = Path(__file__).resolve().parents[1] / "pipeline"
    spec = importlib.util.find_spec("pipeline")
    places = [*(spec.submodule_search_locations or [spec.origin or ""])] if spec else []
    if places and Path(places[0]).resolve() != ours:
        print(
            f"error: {places[0]} shadows {ours}, which vitpipe needs: take {Path(places[0]).parent} out of PYTHONPATH "
            "(`unset PYTHONPATH`), run from another folder, or rename it",
            file=sys.stderr,
        )
        sys.exit(2)
    from pipeline import cli

    cli.main()


if __name__ == "__main__":
    main()
