from components.suggestions import did_you_mean, nearest


def test_similar_names_are_ordered_by_similarity():
    known = ["training.batch_size", "training.epochs", "gate.accuracy"]
    assert nearest("batch_size", known) == ["training.batch_size"]
    assert nearest("training.epoch", known, most=2)[0] == "training.epochs"
    assert did_you_mean("gate.acuracy", known) == "did you mean gate.accuracy? "
    assert did_you_mean("xyz", known) == ""
