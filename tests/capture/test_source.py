"""Tests that errors name a line of the model's code."""

from fxcache.capture.source import last_frame

TRACE = """  File "/models/net.py", line 12, in forward
    x = self.block(x)
  File "/models/block.py", line 34, in forward
    self.masks[0] = x.add_(
"""


def test_the_last_frame_is_the_innermost_line():
    assert last_frame(TRACE) == "/models/block.py:34: self.masks[0] = x.add_("


def test_without_a_frame_there_is_no_line():
    assert last_frame("") == last_frame("While executing %add") == ""
