"""The demonstration: whole hosts as network namespaces, a real server, a replay one can watch."""

from __future__ import annotations
