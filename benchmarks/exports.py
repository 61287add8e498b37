"""Size, latency and accuracy of the exports of a pushed model, against the model itself.

vitpipe data prepare sample --out data/sample && vitpipe run -c sample
python benchmarks/exports.py sample
"""

import argparse
from pathlib import Path

import record

from components.errors import ExportRefused
from pipeline.export import export

COLUMNS = ("model", "size, MB", "ms for one image", "largest difference of a probability", "same class", "accuracy")


def main(name: str, runs: Path) -> None:
    """Export a pushed model to each format, and print a table.

    Args:
        name: Pipeline, or PIPELINE/VERSION.
        runs: Folder of the run folders.
    """
    rows: list[tuple[object, ...]] = []
    for label, int8 in ("LiteRT, float32", False), ("LiteRT, int8", True):
        try:
            comparison = export(name, to="litert", int8=int8, runs=runs).comparison
        except ExportRefused as refusal:
            rows.append((label, "", "", "", "", f"refused: {refusal.args[1]}"))
            continue
        if not rows:
            rows.append(
                (
                    "SavedModel, TensorFlow",
                    f"{comparison.model_bytes / 1e6:.2f}",
                    f"{comparison.model_milliseconds:.2f}",
                    "",
                    "",
                    f"{comparison.model_accuracy:.4f}",
                )
            )
        rows.append(
            (
                label,
                f"{comparison.bytes / 1e6:.2f}",
                f"{comparison.milliseconds:.2f}",
                f"{comparison.largest_difference:.2g}",
                f"{comparison.same_class:,} of {comparison.examples:,}",
                f"{comparison.accuracy:.4f}",
            )
        )
    for row in (COLUMNS, *rows):
        print(" | ".join(map(str, row)))
    record.write("exports", COLUMNS, rows, f"The newest model of the pipeline `{name}`.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="sample", help="pipeline, or PIPELINE/VERSION")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    arguments = parser.parse_args()
    main(arguments.name, arguments.runs)
