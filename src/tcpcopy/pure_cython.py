"""What uncompiled hot modules need of `import cython`, for where Cython is not installed.

The package's `__init__` puts this module in Cython's place then; compiled modules never import it.
Has just the names that the hot modules use (tests/repo/test_pure_cython.py), and behaves as
Cython's own pure mode does.
"""

from __future__ import annotations

from typing import Any

compiled = False


def cast(kind: Any, value: Any) -> Any:
    """Return the value as `kind`; C types change nothing, least of all the width of integers."""
    if not isinstance(kind, type) or isinstance(value, kind) or value is None:
        return value
    return kind(value)


# Integers never wrap uncompiled, so one stand-in does for all of their C types.
char = schar = uchar = short = ushort = uint = int
int = int  # noqa: PLW0127  # as a name of this module
double = float
long = ulong = longlong = ulonglong = Py_ssize_t = int


def address(value: Any) -> Any:
    """Refuse: there are no addresses in uncompiled code."""
    raise NotImplementedError("cython.address outside of `if cython.compiled:`")
