"""Chooses the submodules that a graph calls as they are, because torch.export cannot trace them."""

from collections.abc import Iterator
from types import TracebackType
from typing import NamedTuple

from torch import nn

from fxcache.capture.probe import is_recorded
from fxcache.capture.source import source_line


class Failure(NamedTuple):
    """Why a submodule cannot be traced, and the responsible source line."""

    reason: str
    where: str


class Choice:
    """The submodules of one model that its graph calls as they are.

    Attributes:
        failures: Why each of them cannot be traced.
        paths: The path of each submodule of the model.
    """

    def __init__(self, root: nn.Module) -> None:
        self.failures: dict[nn.Module, Failure] = {}
        self.paths = {m: path for path, m in root.named_modules() if path and is_recorded(m)}
        self._by_attributes = {id(vars(module)): module for module in self.paths}
        self._rejected: set[type] = set()

    def extend(self, error: BaseException, reason: str) -> bool:
        """Choose the innermost submodule that ``error`` was raised in.

        If it was chosen before, a graph cannot call it either, and the one around it is chosen.
        Submodules of one class fail alike: after the second failure of a class, all are chosen.

        Args:
            error: The error of a trace with the submodules that were chosen so far.
            reason: Its first line.

        Returns:
            Whether there is such a submodule. The model itself is none.
        """
        failure = Failure(reason, source_line(error))
        for cause in causes(error):
            for module in reversed(list(self._modules_on(cause.__traceback__))):
                if module in self.failures:
                    failure = self.failures[module]
                    self._reject(type(module))
                elif type(module) not in self._rejected:
                    self._choose(module, failure)
                    return True
        return False

    def _choose(self, module: nn.Module, failure: Failure) -> None:
        kind = type(module)
        again = any(type(chosen) is kind for chosen in self.failures)
        alike = [m for m in self.paths if type(m) is kind] if again else [module]
        self.failures = dict.fromkeys(alike, failure) | self.failures

    def _reject(self, kind: type) -> None:
        self._rejected.add(kind)
        self.failures = {m: f for m, f in self.failures.items() if type(m) is not kind}

    def _modules_on(self, trace: TracebackType | None) -> Iterator[nn.Module]:
        """Yield the submodules whose methods are on a traceback, outermost first."""
        while trace is not None:
            frame = trace.tb_frame
            own = str(frame.f_globals.get("__name__")).startswith("fxcache.")
            names = frame.f_code.co_varnames[: 0 if own else 1]
            # Reading the variables of a frame that still runs would keep a copy of them.
            owner = frame.f_locals.get(names[0]) if names else None
            # In a trace it may be a proxy, which shares the attributes of the module.
            if isinstance(owner, nn.Module) and (m := self._by_attributes.get(id(vars(owner)))):
                yield m
            trace = trace.tb_next


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and the errors that led to it."""
    now: BaseException | None = error
    while now is not None:
        yield now
        now = now.__cause__ or now.__context__
