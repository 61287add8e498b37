from tfx.types.standard_artifacts import HyperParameters

from components.model.newest_tuning import NewestTuning
from components.model.tuning_record import SPACE


def tuning(folder, number, space):
    artifact = HyperParameters()
    artifact.id, artifact.uri = number, str(folder / str(number))
    if space:
        artifact.set_string_custom_property(SPACE, space)
    (folder / str(number)).mkdir()
    return artifact


def test_the_newest_tuning_of_the_same_space_is_chosen(tmp_path):
    spaces = {1: "ours", 3: "ours", 4: "another", 5: "", 6: "ours"}  # 5 is that of another pipeline
    tunings = {number: tuning(tmp_path, number, space) for number, space in spaces.items()}
    (tmp_path / "6").rmdir()
    found = NewestTuning("ours").resolve_artifacts(None, {"hyperparameters": [*tunings.values()]})
    assert found == {"hyperparameters": [tunings[3]]}
    assert NewestTuning("new").resolve_artifacts(None, {"hyperparameters": [*tunings.values()]}) == {
        "hyperparameters": []
    }
