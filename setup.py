"""Adds the compiled modules to what `pyproject.toml` says."""

import sys
from pathlib import Path

from setuptools import setup

# A build front end runs this file from elsewhere: `build_ext.py` stands beside it.
sys.path.insert(0, str(Path(__file__).parent))

from build_ext import COMMANDS, extension_modules

setup(ext_modules=extension_modules(), cmdclass=COMMANDS)
