"""ServingCheck: asks the SavedModel as its clients will."""
