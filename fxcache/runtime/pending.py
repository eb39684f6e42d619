"""Work of one thread that other threads wait for."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager


@contextmanager
def resolving(future: "Future[None]", forget: Callable[[], object]) -> Iterator[None]:
    """Set the result of ``future`` after the block; waiting threads raise the block's exception.

    An interrupt concerns this thread only: the others find that nothing was done, and do it.

    Args:
        future: The future that other threads wait for.
        forget: Removes the future, so that no thread finds it. It is called before they go on.
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
