"""ServingCheck, which sends requests to the SavedModel as its clients will."""
