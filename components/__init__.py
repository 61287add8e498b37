"""Pipeline steps that TFX does not have: those of the data and those of the model."""
