"""A run narrowed to one of its targets."""

from __future__ import annotations

from tcpcopy.report.context import Context, TransferInfo


def test_only_one_target() -> None:
    first = TransferInfo("", 80, "10.0.0.2", 8080)
    again = TransferInfo("10.0.0.1", 81, "10.0.0.2", 8080)
    other = TransferInfo("", 80, "fd00::2", 8080)
    context = Context(mode="classic", transfers=(first, other, again))
    assert context.only("10.0.0.2:8080").transfers == (first, again)
    assert context.only("[fd00::2]:8080").targets == ("[fd00::2]:8080",)
    assert context.only("10.0.0.9:8080").targets == ()
    assert context.only("10.0.0.2:8080").mode == "classic"
