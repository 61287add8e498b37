"""The store of ML Metadata: its address, a reader, and a writer of the few records that TFX does not write itself.

Imports neither TensorFlow nor TFX.
"""
