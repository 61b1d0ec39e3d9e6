"""Fuzzing of all that reads bytes which somebody else wrote: `python -m tests.fuzz --help`."""
