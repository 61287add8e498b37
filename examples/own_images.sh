#!/usr/bin/env bash
# Train a model on your own images: from a folder of photographs to predictions.
#
#   source .venv/bin/activate                      once in each shell, after `make setup`
#   examples/own_images.sh                         with generated images
#   examples/own_images.sh pets ~/Pictures/pets    with images in ~/Pictures/pets/<class>/, as pipeline `pets`
#
# It writes to data/ and runs/ of the current folder.
set -euo pipefail
examples=$(dirname "$0")

case $# in
0)
    name=patterns
    images=data/patterns-images
    python "$examples/generate_images.py" "$images"
    ;;
2)
    name=$1
    images=$2
    ;;
*)
    echo "usage: $0 [NAME FOLDER]" >&2
    exit 2
    ;;
esac

# 1. Prepare: decode every image once, hold out about a tenth for val and a tenth for test, and write TFRecord shards.
vitpipe data prepare images --source "$images" --out "data/$name"

# 2. Run: check the data (the data gate), train, check the model (the model gate and the serving check), and push it.
#    The exit code is 3 if the data is refused, 4 if the model misses a bound and 5 if it cannot be served. The script
#    ends there, and `vitpipe why last` explains which check failed.
vitpipe run -c "$examples/own_images.yaml" --set name="$name" --data "data/$name"

# 3. Predict: ask the newest pushed version about five of the images. This is no test: it was trained on most of them.
version=$(ls -v "runs/$name/serving" | tail -1)
find "$images" \( -iname '*.jp*g' -o -iname '*.png' \) -print0 | shuf -z -n 5 |
    xargs -0 vitpipe predict --model "runs/$name/serving/$version"

# What next: `vitpipe report last` opens the report of the run, `vitpipe explain IMAGE` shows what the model looks at.
