"""Finds the source line of the model for an error or a node."""

import linecache
import re
import traceback
from collections.abc import Iterable

from torch import fx

FRAME = re.compile(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)')  # of a stack trace
OTHERS = ("/torch/", "/fxcache/capture/", "/fxcache/_torch/", "/contextlib.py", "<eval_with_key>")


def source_line(error: BaseException) -> str:
    """Return the innermost line of the model's code in the traceback, as ``file:line: code``."""
    return innermost(traceback.extract_tb(error.__traceback__))


def innermost(frames: Iterable[traceback.FrameSummary]) -> str:
    """Return the last of ``frames`` outside torch and the trace."""
    model_frames = [
        f for f in frames if not any(part in f.filename.replace("\\", "/") for part in OTHERS)
    ]
    if not model_frames:
        return "inside torch.export"
    frame = model_frames[-1]
    code = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{frame.filename}:{frame.lineno}: {code}"


def source_of(node: fx.Node) -> str:
    """Return the source line of ``node``, or its name if the line was not recorded."""
    return last_frame(node.meta.get("stack_trace") or "") or f"graph node {node.name}"


def recorded_line(error: BaseException) -> str:
    """The source line of the node that raised ``error``, from the message of fx; "" if unknown."""
    return last_frame(str(error).partition("Original traceback:\n")[2])


def last_frame(trace: str) -> str:
    """Return the last frame of a stack trace that fx recorded, as ``file:line: code``."""
    frames = [found.groups() for found in FRAME.finditer(trace)]
    return "{}:{}: {}".format(*frames[-1]) if frames else ""
