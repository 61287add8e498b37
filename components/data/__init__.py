"""Steps that import, measure and check images."""
