"""The pipeline steps that TFX does not have, one a file."""
