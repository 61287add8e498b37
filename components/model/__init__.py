"""Steps that train, judge and push a model."""
