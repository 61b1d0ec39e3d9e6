"""Copies the live TCP traffic of a server to a test server, session by session, byte for byte."""

import sys
from importlib.util import find_spec

# Uncompiled hot modules import the names of Cython's pure mode. They do not need Cython for that.
if "cython" not in sys.modules and find_spec("cython") is None:
    from tcpcopy import pure_cython

    sys.modules["cython"] = pure_cython
