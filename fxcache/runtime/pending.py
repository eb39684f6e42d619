"""Work under way in one thread that others wait for."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager


@contextmanager
def resolving(future: "Future[None]", forget: Callable[[], object]) -> Iterator[None]:
    """Threads that wait for ``future`` go on after the block, and raise what it raises.

    An interrupt is this thread's own: the others find nothing done, and try it themselves.

    Args:
        future: what the others wait for.
        forget: called before they go on, so that no thread finds the future any more.
    """
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        forget()
        if isinstance(error, Exception):
            future.set_exception(error)
        else:
            future.set_result(None)
