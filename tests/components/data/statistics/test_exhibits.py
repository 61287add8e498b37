import pandas as pd

from components.data.ingest import tfrecord
from components.data.statistics.component import EXHIBITS
from components.data.statistics.exhibits import MAX_EXHIBITS, in_order
from components.data.statistics.figures import read_figures
from tests.helpers.spans import encoded, picture


def test_the_first_images_of_each_check_and_class_are_exhibits(measured, summarized, tmp_path):
    train = [(encoded(picture(seed)), seed % 3) for seed in range(90)]
    train += [(encoded(picture(seed)), 0) for seed in range(3)] + [(b"", 0), (encoded(picture(95, 20)), 9)]
    images = measured(train=train, test=[(encoded(picture(96)), 0)] * 2)
    images.loc[images.id == b"train-5", "id"] = b"train-4"
    images.loc[images.id == b"test-0", "id"] = b"train-4"  # the test set may use the same ids
    folder = summarized(images)
    exhibits = in_order(pd.read_parquet(folder / EXHIBITS).sample(frac=1, random_state=0))  # as an engine might
    of = {str(check): rows for check, rows in exhibits.groupby("check", sort=False)}
    assert of["undecodable"][["id", "reason"]].to_numpy().tolist() == [[b"train-93", "not a PNG or JPEG image"]]
    assert of["outside_labels"].id.tolist() == [b"train-94"]
    assert of["image_side"].iloc[0][["id", "width", "height"]].tolist() == [b"train-94", 20, 20]
    assert of["duplicates"].id.tolist() == [b"train-90", b"train-91", b"train-92"]
    assert of["repeated_ids"].id.tolist() == [b"train-4"]
    assert read_figures(folder).repeated_ids == 1
    samples = of["samples"][of["samples"].label == 1]
    assert len(samples) == MAX_EXHIBITS and samples.id.tolist() == sorted(samples.id)
    [row] = of["repeated_ids"].itertuples()
    assert tfrecord.read_example(tmp_path / row.shard, row.offset).image == train[5][0]
