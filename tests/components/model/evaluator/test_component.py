"""Test of the table of predictions; the tests of whole runs test the rest of the component."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.model.evaluator.component import _read_for_tfma, _write
from components.model.evaluator.predictions import SCHEMA, Predictions, as_lists

SHARDS = {"part-0.tfrecord": 300, "part-1.tfrecord": 7}


def predictions(folder, rng):
    files = []
    for shard, count in SHARDS.items():
        files.append(folder / f"{shard}.parquet")
        probabilities = rng.dirichlet(np.ones(3), count).astype("float32")
        ids = [f"{shard}-{n}".encode() for n in range(count)]
        pq.write_table(
            pa.table([ids, [n % 3 for n in range(count)], as_lists(probabilities)], schema=SCHEMA), files[-1]
        )
    return Predictions(files, 3, {}, ("cat", "dog", "fox"))


def images(rng):
    """Table of images in another order than the shards, with equal brightnesses, and without those of one image."""
    table = pd.concat(
        pd.DataFrame({"shard": shard, "id": [f"{shard}-{n}".encode() for n in range(count)], "offset": range(count)})
        for shard, count in SHARDS.items()
    )
    table["split"] = "test"
    table["brightness"], table["sharpness"] = rng.integers(0, 5, len(table)).astype(float), rng.random(len(table))
    table.iloc[3, table.columns.get_loc("brightness")] = np.nan
    return table.reset_index(drop=True)


def test_the_table_has_thirds_and_the_probabilities_of_each_model(tmp_path):
    rng = np.random.default_rng(0)
    answers = {}
    for role in "candidate", "serving":
        (tmp_path / role).mkdir()
        answers[role] = predictions(tmp_path / role, rng)
    table = images(rng)
    (tmp_path / "images").mkdir()
    train = table.assign(split="train", brightness=99.0)
    pd.concat([train, table.sample(frac=1, random_state=1)]).to_parquet(tmp_path / "images" / "part.parquet")
    files = _write(answers, tmp_path / "images", tmp_path / "predictions.parquet")
    found = pd.read_parquet(tmp_path / "predictions.parquet")
    assert found.id.tolist() == table.id.tolist() and list(found.columns)[-2:] == ["candidate", "serving"]
    for look in "brightness", "sharpness":
        rank = table[look].rank(method="first", na_option="top").to_numpy(int) - 1
        assert found[look].tolist() == np.array(["low", "middle", "high"])[rank * 3 // len(table)].tolist()
    for role, of_role in answers.items():
        np.testing.assert_array_equal(
            np.stack(found[role].tolist()), np.concatenate([batch.probabilities for batch in of_role.batches()])
        )
    [batch, *_] = _read_for_tfma(str(files[1]))
    assert batch["label"].to_pylist() == [[n % 3] for n in range(7)] and "id" not in batch.schema.names
    assert len(batch["candidate"][0]) == 3
