import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.data.statistics import leaks
from components.data.statistics.figures import Leak
from components.data.statistics.leaks import find_twins, leave_out_mask, list_leaks
from components.data.statistics.twins import Image as Place
from components.data.statistics.twins import Twin
from tests.helpers.spans import encoded, picture


def place(name, label=0):
    return Place(name.split("-")[0], name.encode(), label)


def near(name, correlation):
    return Twin(place(name), correlation, exact=False)


def rows(images, twins=()):
    found = find_twins([place(name) for name in images], twins)
    return [tuple(row.values())[:6] for row in found]


def test_every_image_that_shows_a_picture_of_another_split_has_a_row():
    assert rows(["train-1", "train-0", "test-0"]) == [
        ("train", b"train-1", "test", b"test-0", 1.0, True),
        ("train", b"train-0", "test", b"test-0", 1.0, True),
        ("test", b"test-0", "train", b"train-0", 1.0, True),
    ]
    assert rows(["train-0", "train-1"], [near("train-2", 0.9)]) == []


def test_the_closest_twin_of_each_split_is_named():
    twins = [near("test-0", 0.5), near("test-2", 0.8), near("test-1", 0.8), near("val-0", 0.4)]
    assert rows(["train-0"], twins) == [
        ("train", b"train-0", "test", b"test-1", 0.8, False),
        ("train", b"train-0", "val", b"val-0", 0.4, False),
    ]
    assert ("train", b"train-0", "test", b"test-5", 1.0, True) in rows(["train-0", "test-5"], twins)


def test_leaks_are_counted_in_the_target():
    counts = {("test", "train", True): 2, ("test", "train", False): 1, ("train", "test", True): 5}
    wanted = Leak(source="train", target="test", exact=2, near=1)
    assert list_leaks(counts, {"train", "test"}) == [wanted]
    assert list_leaks(counts, {"train"}) == []
    assert len(list_leaks({}, {"train", "val", "test"})) == 3


def test_leaks_are_removed_from_the_source():
    table = pd.DataFrame(find_twins(map(place, ["train-0", "test-0"]), []))
    assert leave_out_mask(table).tolist() == [True, False]
    assert leaks.leaks_into("train", "val") and not leaks.leaks_into("val", "train")


def paletted(indices, colour):
    image = Image.fromarray(indices, "P")
    image.putpalette([value for n in range(4) for value in colour(n)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_pixels_decide_which_files_are_equal(measured, find):
    quick, small = (encoded(picture(0), compress_level=level) for level in (0, 9))
    grey = Image.fromarray(picture(1)).convert("L")
    deep = np.asarray(Image.fromarray(picture(2)).convert("L")).astype("uint16") * 256 + 7
    indices = np.arange(1024, dtype="uint8").reshape(32, 32) % 4
    blank = [encoded(np.full((32, 32, 3), value, "uint8")) for value in (10, 11)]
    darkened = (picture(3) * 0.8).astype("uint8")
    train = [quick, encoded(np.asarray(grey)), encoded(deep), blank[0], encoded(picture(3)), b""]
    test = [small, encoded(np.asarray(grey.convert("RGB"))), encoded((deep * 0.8).astype("uint16")), blank[1]]
    test += [encoded(darkened, "JPEG", quality=60), b""]
    train.append(paletted(indices, lambda n: (60 * n, 0, 0)))
    test.append(paletted(indices, lambda n: (0, 0, 60 * n)))
    others = [(encoded(picture(seed)), 0) for seed in range(10, 40)]
    twins, _ = find(measured(train=[(image, 0) for image in train] + others, test=[(image, 0) for image in test]))
    assert quick != small
    of_test = twins[twins.split == "test"].set_index("id")
    exact = of_test[of_test.exact]
    assert exact.twin_id.to_dict() == {b"test-0": b"train-0", b"test-1": b"train-1"}
    assert (exact.correlation == 1).all()
    nearly = of_test[~of_test.exact]
    # Neither blank pictures nor equal indices in different palettes nor files that do not decode are twins.
    assert {b"test-2": b"train-2", b"test-4": b"train-4"}.items() <= nearly.twin_id.to_dict().items()
    assert not {b"test-3", b"test-5"} & {*of_test.index}
    assert 0.4 < nearly.correlation[b"test-4"] < 1


@pytest.mark.parametrize("images", [[(b"", 0)], []], ids=["undecodable", "none"])
def test_a_table_without_usable_images_has_no_findings(measured, find, images):
    usable = [(encoded(picture(0)), 0)] if not images else []
    for table in find(measured(train=images + usable, test=images)):
        assert table.empty and "twin_id" in table
