"""ServingCheck: queries the SavedModel as its clients will."""
