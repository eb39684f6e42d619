"""The size of the code, and the files that one step runs through.

``python -m bench.readability`` prints files with more than 250 lines, functions with more than 40
lines (without their docstrings) or more than nine parameters, the number of lines of the package,
the parameters of ``optimize``, and the files in which a reuse step calls functions before its
variant runs.
"""

import argparse
import ast
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import fxcache
from bench.dispatch import unet

ROOT = Path(__file__).parents[1]
FOLDERS = ("fxcache", "kernels", "bench")
MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 250, 40, 9
GENERATED = "eval_with_key"  # in the file names of code that torch.fx generates


def sources() -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each file."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not path.is_symlink() and (ROOT / "fxcache" / "kernels") not in path.parents:
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def functions(path: str, text: str) -> Iterator[tuple[str, int, int]]:
    """Yield the name, the lines without docstring and the parameters of each function."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            yield f"{path}:{node.name}", lines_of(node) - docstring_lines(node), len(every)


def lines_of(node: ast.stmt) -> int:
    """The lines that a statement takes."""
    return (node.end_lineno or 0) - node.lineno + 1


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's docstring."""
    return lines_of(node.body[0]) if ast.get_docstring(node, clean=False) is not None else 0


@torch.no_grad()
def files_of_a_step() -> list[str]:
    """Return the files in which a reuse step calls functions before its variant runs."""
    model, timesteps = fxcache.optimize(unet(), fxcache.Uniform(9)), torch.arange(6, 0, -1)
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    found: dict[str, None] = {}
    package, reached = str(Path(fxcache.__file__).parent), False

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal reached
        del argument
        file = frame.f_code.co_filename
        reached = reached or GENERATED in file
        if event == "call" and file.startswith(package) and not reached:
            found[str(Path(file).relative_to(package))] = None

    for timestep in timesteps[:-1]:
        model(latents, timestep, encoder_hidden_states=text)
    sys.setprofile(trace)
    model(latents, timesteps[-1], encoder_hidden_states=text)
    sys.setprofile(None)
    return list(found)


def measure() -> dict[str, Any]:
    texts = dict(sources())
    lines = {path: text.count("\n") for path, text in texts.items()}
    every = [found for path, text in texts.items() for found in functions(path, text)]
    package = [count for path, count in lines.items() if not path.startswith("bench")]
    return {
        "long_files": {p: n for p, n in lines.items() if n > MOST_LINES},
        "long_functions": {name: n for name, n, _ in every if n > MOST_FUNCTION_LINES},
        "many_parameters": {name: n for name, _, n in every if n > MOST_PARAMETERS},
        "package_lines": sum(package),
        "package_files": len(package),
        "optimize_parameters": list(inspect.signature(fxcache.optimize).parameters),
        "files_of_a_step": files_of_a_step(),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(json.dumps(measure(), indent=2))


if __name__ == "__main__":
    main()
