"""The Vision Transformer and its training, which do not depend on the pipeline."""
