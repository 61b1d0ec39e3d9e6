"""Benchmark suite: real servers and loads on hosts made of network namespaces.

Run as `python -m benchmarks` (root); docs/performance.md says what is measured and how.
"""
