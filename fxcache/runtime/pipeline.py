"""Optimised pipelines: each call is one run of each denoiser."""

import functools
import warnings
from collections.abc import Callable, Container, Iterable
from types import TracebackType
from typing import Any, Self

from torch import nn

from fxcache.errors import FxcacheWarning, StateError
from fxcache.program import STATE_KEY
from fxcache.runtime.class_swap import ClassSwap, without_swap
from fxcache.runtime.denoisers import is_pipeline
from fxcache.runtime.engine import Engine
from fxcache.runtime.module import engine_of, innermost, unwrapped
from fxcache.runtime.schedule import Schedule
from fxcache.runtime.session import Session, open_sessions
from fxcache.runtime.trajectory.position import Place


class PipelineRun:
    """One call of a pipeline. Inside the block, the calls of each denoiser are one run.

    Nested calls of pipelines, and calls in other threads or tasks, are separate runs. If several
    runs and sessions of a module are open, its calls belong to the innermost.

    Args:
        modules: The optimised denoisers.
        schedule: The noise schedule of the call.
    """

    def __init__(self, modules: Iterable[nn.Module], schedule: Schedule):
        distinct = {id(module): module for module in modules}
        self.modules, self.schedule = tuple(distinct.values()), schedule
        self._sessions: tuple[Session, ...] = ()

    def __enter__(self) -> Self:
        self._sessions = tuple(Session(module, pipeline_run=self) for module in self.modules)
        open_sessions.set((*open_sessions.get(), *self._sessions))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ended = set(map(id, self._sessions))
        open_sessions.set(tuple(s for s in open_sessions.get() if id(s) not in ended))
        for session in self._sessions:
            session.close(cut_short=kind is not None or self.schedule.interrupted())
        self._sessions = ()

    def place(self) -> Place | None:
        """Return the noise scheduler's place; None if the scheduler does not count its steps."""
        return self.schedule.place()

    def end(self, module: nn.Module) -> int | None:
        """Return the place at which the calls of ``module`` end; None for that of the schedule."""
        return self.schedule.end(module)

    def loop_place(self) -> Place | None:
        """Return the place of the pipeline's loop; None if it does not tell it."""
        return self.schedule.loop_place()


class OptimizedPipeline:
    """The first base class of every optimised pipeline's class."""


def attach_pipeline(pipeline: Any, names: Iterable[str]) -> None:
    """Make each call of ``pipeline`` one run; ``names`` are its optimised components."""
    if not is_optimized(pipeline):
        pipeline.__class__ = PIPELINE_CLASSES.of(type(pipeline))
    vars(pipeline)[STATE_KEY] = frozenset(names)


def detach_pipeline(pipeline: Any) -> None:
    """Undo ``attach_pipeline``. A pipeline that is not optimised stays as it is."""
    if is_optimized(pipeline):
        pipeline.__class__ = without_swap(type(pipeline))
        vars(pipeline).pop(STATE_KEY, None)


def is_optimized(pipeline: object) -> bool:
    """Return whether each call of ``pipeline`` is one run."""
    return isinstance(pipeline, OptimizedPipeline)


def run_of(pipeline: Any) -> PipelineRun:
    """Return a run of the denoisers that ``pipeline`` has now."""
    modules = optimized_components(pipeline)
    warn_of_replaced(pipeline, modules)
    return PipelineRun(modules.values(), Schedule.of(pipeline))


def optimized_components(pipeline: Any) -> dict[str, nn.Module]:
    """Return the optimised components of ``pipeline`` by name, without their wrappers."""
    components = pipeline.components.items()
    modules = {name: innermost(c) for name, c in components if isinstance(c, nn.Module)}
    return {name: module for name, module in modules.items() if engine_of(module) is not None}


def optimized_modules(model: Any, caller: str) -> dict[str, nn.Module]:
    """Return the optimised modules of ``model`` by component; raise StateError for none."""
    if not is_pipeline(model):
        module = unwrapped(model, caller)
        require_engine(module, caller)
        return {"": module}
    modules = optimized_components(model)
    if not modules and not is_optimized(model):
        raise not_optimized(model, caller)
    return modules


def require_engine(module: nn.Module, caller: str) -> Engine:
    """Return the engine of ``module``; raise StateError if it is not optimised."""
    engine = engine_of(module)
    if engine is None:
        raise not_optimized(module, caller)
    return engine


def not_optimized(model: object, caller: str) -> StateError:
    return StateError(
        f"{type(model).__name__} is not optimised",
        where=caller,
        remedy="call fxcache.optimize(model) first",
    )


def warn_of_replaced(pipeline: Any, optimized: Container[str]) -> None:
    """Warn once of components that were optimised and are not in ``optimized`` now."""
    names: frozenset[str] = vars(pipeline).get(STATE_KEY, frozenset())
    replaced = sorted(name for name in names if name not in optimized)
    if replaced:
        vars(pipeline)[STATE_KEY] = names.difference(replaced)
        warnings.warn(
            f"{', '.join(replaced)} of {type(pipeline).__name__} is not optimised any more: "
            "the component was replaced or restored. Its steps are exact, but no faster. Call "
            "fxcache.optimize(pipe) again.",
            FxcacheWarning,
            stacklevel=4,  # the line that calls the pipeline
        )


def pipeline_members(original: type) -> dict[str, Any]:
    """Return the members of an optimised pipeline's class: its ``__call__`` opens a run."""
    call = original.__call__

    @functools.wraps(call)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        with run_of(self):
            return call(self, *args, **kwargs)

    def reduce(self: Any, protocol: int) -> Any:
        """Let copies and pickles be optimised too."""
        reduced: Any = original.__reduce_ex__(self, max(2, protocol))  # type: ignore[call-arg]
        make, arguments, *rest = reduced
        arguments = tuple(original if a is type(self) else a for a in arguments)
        return rebuild_pipeline, (original, make, arguments), *rest

    return {"__call__": __call__, "__reduce_ex__": reduce}


PIPELINE_CLASSES = ClassSwap(OptimizedPipeline, pipeline_members)


def rebuild_pipeline(
    original: type, make: Callable[..., Any], arguments: tuple[Any, ...]
) -> OptimizedPipeline:
    """Return an empty optimised instance of ``original``, whose state is set next."""
    pipeline: OptimizedPipeline = make(*arguments)
    pipeline.__class__ = PIPELINE_CLASSES.of(original)
    return pipeline
