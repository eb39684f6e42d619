"""Compiles graphs to machine code with AOTInductor, and runs it.

Why: torch has public functions for one graph that owns its weights. Two graphs that share weights
of the caller need the functions behind them. Imported late, because Inductor takes seconds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["MachineCode", "compile_graph", "cpu_instructions", "pack_graphs"]

OPTIONS = {
    "aot_inductor.package": True,
    "aot_inductor.package_constants_in_so": False,
    # Without these two, small weights become constants of the code, and new values are ignored.
    "always_keep_tensor_constants": True,
    "joint_graph_constant_folding": False,
}


def compile_graph(
    module: fx.GraphModule, inputs: Sequence[Tensor], dims: Sequence[Mapping[int, Any]]
) -> Any:
    """Compile ``module`` for the device of its weights. Return a list of files for ``pack_graphs``.

    Args:
        module: A functional graph.
        inputs: Example inputs.
        dims: For each input, the ``torch.export.Dim`` of each dimension that may vary.
    """
    import torch._inductor

    with torch.no_grad():
        exported = torch.export.export(module, tuple(inputs), dynamic_shapes=tuple(dims))
        plain = exported.module(check_guards=False)
        return torch._inductor.aot_compile(plain, tuple(inputs), options=OPTIONS)


def pack_graphs(file: Path, graphs: Mapping[str, Any]) -> None:
    """Write compiled graphs, by name, to one file whose name ends in ``.pt2``."""
    from torch._inductor.package.package import package_aoti

    package_aoti(str(file), dict(graphs))


def cpu_instructions() -> str:
    """Return the vector instructions that Inductor compiles for on this CPU."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    return str(pick_vec_isa())


class MachineCode:
    """One compiled graph. Loading it runs code from the file.

    Args:
        file: The file that ``pack_graphs`` wrote.
        name: The name of the graph.
        device: The device that it was compiled for.

    Raises:
        RuntimeError: The file cannot be loaded.
    """

    def __init__(self, file: Path, name: str, device: torch.device):
        index = -1 if device.type == "cpu" else device.index or 0
        self._loader = torch._C._aoti.AOTIModelPackageLoader(str(file), name, False, 1, index)

    @property
    def weights(self) -> set[str]:
        """The names of the weights that the code reads."""
        return set(self._loader.get_constant_fqns())

    def bind(self, weights: Mapping[str, Tensor]) -> None:
        """Let the code read these tensors. It keeps their addresses: the caller keeps the tensors.

        Args:
            weights: All weights, by name.
        """
        self._loader.load_constants(dict(weights), False, True, True)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the outputs. Nothing is checked: wrong inputs read memory out of bounds."""
        return self._loader.boxed_run(list(inputs))
