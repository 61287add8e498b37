"""Pipeline steps that TFX does not have, for data and for models."""
