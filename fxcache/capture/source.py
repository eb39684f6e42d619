"""Where in the model's source an error or a node of the graph comes from."""

import linecache
import traceback
from collections.abc import Iterable

from torch import fx

OTHERS = ("/torch/", "/fxcache/capture/", "<eval_with_key>")


def source_line(error: BaseException) -> str:
    """The innermost line of the model's own code in the traceback: ``file:line: code``."""
    return innermost(traceback.extract_tb(error.__traceback__))


def innermost(frames: Iterable[traceback.FrameSummary]) -> str:
    """The last of ``frames`` that is neither torch's nor capture's own."""
    inside = [
        f for f in frames if not any(part in f.filename.replace("\\", "/") for part in OTHERS)
    ]
    if not inside:
        return "inside torch.export"
    frame = inside[-1]
    code = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
    return f"{frame.filename}:{frame.lineno}: {code}"


def source_of(node: fx.Node) -> str:
    """Where in the model's source ``node`` comes from."""
    return last_frame(node.meta.get("stack_trace") or "") or f"graph node {node.name}"


def recorded_line(error: BaseException) -> str:
    """The source line of the node at which running a graph raised ``error``; "" if unknown.

    fx appends it to the message.
    """
    return last_frame(str(error).partition("Original traceback:\n")[2])


def last_frame(trace: str) -> str:
    """The last frame of a trace that fx recorded, and its line of code."""
    _, found, frame = trace.rpartition('File "')
    return found + " ".join(line.strip() for line in frame.splitlines()[:2])
