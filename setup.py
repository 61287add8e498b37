"""Setup script for Beam, which runs `python setup.py sdist` to ship this package to remote workers.

The metadata of the package is in pyproject.toml.
"""

from setuptools import setup

setup()
