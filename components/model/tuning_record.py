"""Record of a tuning: the properties of its HyperParameters artifact. Imports no TFX, because readers use it, too."""

import json

from trainer.search_space import TuneSettings

FILE = "best_hyperparameters.txt"  # the only file of the artifact, as TFX's Trainer expects
ARTIFACT = "HyperParameters"  # name of the artifact's type

# Names of the properties.
VALUES = "values"  # best values by dotted names, as JSON
SPACE = "space"  # the search space, from `space_text`
RUN = "run_id"  # id of the tuning's run
ACCURACY = "best_value"  # accuracy on val of the best trial
TRIAL = "best_trial"  # number of the best trial
TRIALS = "trials"  # number of trials
SECONDS = "seconds"  # of all trials together


def space_text(tune: TuneSettings) -> str:
    """Return a search space as text, the same for equal spaces."""
    dimensions = tune.space.dimensions()
    return json.dumps({name: values.model_dump(mode="json") for name, values in dimensions.items()}, sort_keys=True)
