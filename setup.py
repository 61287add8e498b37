"""What Beam ships to remote workers: it runs `python setup.py sdist` here. The metadata is in pyproject.toml."""

from setuptools import setup

setup()
