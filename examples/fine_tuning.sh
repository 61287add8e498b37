#!/usr/bin/env bash
# Fine-tune a pretrained model on a few images: the digits 5 to 9, from a model of the digits 0 to 4.
#
#   source .venv/bin/activate    once in each shell, after `make setup`
#   examples/fine_tuning.sh
#
# It writes to data/ and runs/ of the current folder.
set -euo pipefail
examples=$(dirname "$0")

# 1. The pretrained model. Any pipeline that has pushed a model will do, and so does a .keras file or a preset of
#    KerasHub.
vitpipe data prepare sample --classes zero,one,two,three,four --out data/digits-0-4
vitpipe run -c sample --data data/digits-0-4 --set name=digits-0-4 --set gate.accuracy=0.8 --set gate.class_accuracy=0.5

# 2. The new task: 50 images of each class for train and val.
vitpipe data prepare sample --classes five,six,seven,eight,nine --per-class 50 --out data/digits-5-9

# 3. Give the pretrained model a new head, train it, then check and push the result as every run does.
vitpipe finetune --from digits-0-4 -c "$examples/fine_tuning.yaml"

# 4. The lineage of the pushed model, which names the pretrained one.
vitpipe lineage v1 --pipeline digits-5-9
