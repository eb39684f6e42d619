"""Iterations: a module that is called several times, each time with its last result."""

from collections.abc import Sequence
from typing import Any

from torch import fx

from fxcache.analysis.dependence import Dependence
from fxcache.program import Program


def calls_of(program: Program, path: str) -> list[list[fx.Node]]:
    """Return the nodes of each call of the module at ``path``, call by call."""
    calls: dict[str, list[fx.Node]] = {}
    for node in program.graph.nodes:
        for key, (module, _) in (node.meta.get("nn_module_stack") or {}).items():
            if module == path and node.op == "call_function":
                calls.setdefault(key, []).append(node)
    return list(calls.values())


class Iteration:
    """The calls of one module, each of which reads results of the call before."""

    def __init__(self, needs: Dependence, calls: Sequence[Sequence[fx.Node]]) -> None:
        """Prepare to look for iterates.

        Args:
            needs: The dependences of the program.
            calls: The nodes of each call.
        """
        self._needs, self._calls = needs, calls

    def iterates(self, index: int) -> list[tuple[fx.Node, fx.Node]]:
        """Return the values that a call receives from the call before, with their last versions.

        Args:
            index: The number of the call, from 1.

        Returns:
            Pairs of a value that call ``index`` receives, and the value that a further call after
            the last one would receive in its place. Empty if the calls are no iteration.
        """
        before, call, last = (set(self._calls[i]) for i in (index - 1, index, -1))
        received = dict.fromkeys(
            source
            for node in self._calls[index]
            for source in node.all_input_nodes
            if source not in call and self._depends(source, before)
        )
        if len(before) != len(last) or not received:
            return []
        later: dict[fx.Node, fx.Node] = {}
        for early, late in zip(self._calls[index - 1], self._calls[-1], strict=True):
            later[early] = late
            later.update(zip(early.all_input_nodes, late.all_input_nodes, strict=False))
        pairs = []
        for value in received:
            end = self._later(value, before, later)
            if end is None:
                return []
            pairs.append((value, end))
        return pairs

    def _depends(self, value: fx.Node, nodes: set[fx.Node]) -> bool:
        return any(self._needs.needs(value, node) for node in nodes)

    def _later(
        self, value: fx.Node, before: set[fx.Node], later: dict[fx.Node, fx.Node]
    ) -> fx.Node | None:
        """Return the value that is computed from the last call as ``value`` is from ``before``.

        Args:
            value: The value.
            before: The nodes of an earlier call.
            later: The nodes that correspond to others after the last call. Receives more of them.
        """
        if value in later:
            return later[value]
        if not self._depends(value, before):
            return value
        sources = {s: self._later(s, before, later) for s in value.all_input_nodes}
        changed = next((end for s, end in sources.items() if end is not s), None)
        for user in changed.users if changed else ():
            if user.target == value.target and same_arguments(value, user, sources):
                later[value] = user
                return user
        return None


def same_arguments(first: fx.Node, second: fx.Node, sources: dict[fx.Node, fx.Node | None]) -> bool:
    """Return whether ``second`` has the arguments of ``first``, with ``sources`` replaced."""

    def replaced(arguments: Any) -> Any:
        return fx.map_arg(arguments, lambda node: sources.get(node) or node)

    return replaced(first.args) == second.args and replaced(first.kwargs) == second.kwargs
