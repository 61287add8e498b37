"""The Vision Transformer and how it learns; knows nothing of pipelines."""
