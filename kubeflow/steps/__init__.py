"""Programs that the pods of a run on a cluster execute."""
