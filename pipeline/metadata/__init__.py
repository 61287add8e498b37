"""ML Metadata: a read model of it, and the few records that are written in addition to TFX's own.

Imports neither TensorFlow nor TFX.
"""
