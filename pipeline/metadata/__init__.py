"""ML Metadata: a read model of it, and the few things that are written beside what TFX writes.

Imports neither TensorFlow nor TFX.
"""
