"""Tests that a capture leaves no fake tensor and no value of the trace in the model."""

import functools
import gc
import threading
import weakref
from collections import ChainMap, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import fxcache
from tests.capture.prepared import captured


class Frequencies:
    """A helper that is not a module, and caches its first result."""

    def __init__(self) -> None:
        self.kept: Tensor | None = None
        self.by_length: dict[int, Tensor] = {}

    def __call__(self, length: int) -> Tensor:
        if self.kept is None:
            self.kept = torch.arange(1000.0).cos()
        if length not in self.by_length:
            self.by_length[length] = self.kept[:length]
        return self.by_length[length]


class Rotary(nn.Module):
    @functools.lru_cache(maxsize=4)  # noqa: B019
    def frequencies(self, length: int) -> Tensor:
        return torch.arange(1.0, 1 + length).sin()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.frequencies(x.shape[1])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.helper, self.rotary = Frequencies(), Rotary()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        x = sample + self.helper(sample.shape[1]) + timestep
        for block in self.blocks:
            x = x + block(self.rotary(x))
        return x


@torch.no_grad()
def test_a_model_captured_before_its_first_call_works_after_restore():
    x, t = torch.randn(2, 8), torch.tensor(3.0)
    expected = Model()(x, t)
    model = Model().eval()
    fxcache.optimize(model, capture=fxcache.CaptureConfig(example_inputs=(x, t)))
    assert model.helper.kept is None
    assert model.helper.by_length == {}
    with fxcache.session(model):
        assert torch.equal(model(x, t), expected)
    fxcache.restore(model)
    assert torch.equal(model(x, t), expected)
    kept: Any = model.helper.kept
    assert type(kept) is Tensor


@torch.no_grad()
def test_values_cached_before_the_capture_stay():
    x, t = torch.randn(2, 8), torch.tensor(3.0)
    model = Model().eval()
    expected = model(x, t)
    kept = model.helper.kept
    fxcache.optimize(model, capture=fxcache.CaptureConfig(example_inputs=(x, t)))
    assert model.helper.kept is kept
    with fxcache.session(model):
        assert torch.equal(model(x, t), expected)


class Unhashable(type):
    """A metaclass whose classes have no hash and name no module."""

    __hash__ = None  # type: ignore[assignment]
    __module__ = None  # type: ignore[assignment]


class Odd(metaclass=Unhashable):
    pass


ODD = Odd()


@torch.no_grad()
def test_unusual_classes_in_the_models_file_are_accepted():
    model, x, t = Model().eval(), torch.randn(2, 8), torch.tensor(3.0)
    expected = model(x, t)
    assert torch.equal(fxcache.optimize(model)(x, t), expected)


class Slots:
    """A helper without a ``__dict__``."""

    __slots__ = ("__private", "kept")

    def __call__(self, length: int) -> Tensor:
        if not hasattr(self, "kept"):
            self.kept, self.__private = torch.arange(float(length)).cos(), True
        return self.kept


def memoized(function: Callable[[int], Tensor]) -> Callable[[int], Tensor]:
    """Keeps results in a closure."""
    results: dict[int, Tensor] = {}

    @functools.wraps(function)
    def wrapper(length: int) -> Tensor:
        if length not in results:
            results[length] = function(length)
        return results[length]

    return wrapper


@memoized
def in_a_closure(length: int) -> Tensor:
    return torch.arange(float(length)).sin()


def in_a_default(length: int, results: dict[int, Tensor] = {}) -> Tensor:  # noqa: B006
    return results.setdefault(length, torch.linspace(1, 2, length))


def in_an_attribute(length: int) -> Tensor:
    if not hasattr(in_an_attribute, "table"):
        in_an_attribute.table = torch.linspace(2, 3, length)  # type: ignore[attr-defined]
    return in_an_attribute.table  # type: ignore[attr-defined]


@functools.lru_cache
def in_an_lru_cache(length: int) -> Tensor:
    return torch.linspace(3, 4, length)


GLOBAL: Tensor | None = None
READY = False
SLOTS = Slots()
MAPS = ChainMap[int, Tensor]({}, {})
DEFAULTS: defaultdict[int, list[Tensor]] = defaultdict(list)
USER_DICT: UserDict[int, Tensor] = UserDict()
ORDERED: OrderedDict[int, Tensor] = OrderedDict()
DEQUE: deque[Tensor] = deque(maxlen=2)
SET: set[Tensor] = set()
WEAK: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()
LOCAL = threading.local()
NESTED: dict[str, list[dict[int, Tensor]]] = {"tables": [{}]}


def in_globals(length: int) -> Tensor:
    """READY is not a tensor, but must be restored with GLOBAL."""
    global GLOBAL, READY
    if not READY:
        GLOBAL, READY = torch.linspace(0, 1, length), True
    assert GLOBAL is not None
    return GLOBAL


def in_containers(length: int) -> Tensor:
    new = torch.linspace(0, 1, length)
    MAPS.setdefault(length, new)
    DEFAULTS[length].append(new)
    USER_DICT.setdefault(length, new)
    ORDERED.setdefault(length, new)
    NESTED["tables"][0].setdefault(length, new)
    DEQUE.append(new)
    SET.add(new)
    WEAK[length] = new
    LOCAL.table = new
    return MAPS[length] + DEFAULTS[length][-1] + USER_DICT[length] + ORDERED[length] + DEQUE[-1]


class InClass(nn.Module):
    table: Tensor | None = None
    scale = 2.0

    @property
    @functools.lru_cache  # noqa: B019
    def frequencies(self) -> Tensor:
        return torch.linspace(1, 2, 8)

    @classmethod
    @functools.lru_cache
    def positions(cls, length: int) -> Tensor:
        return torch.linspace(0, 1, length)

    def forward(self, x: Tensor) -> Tensor:
        if InClass.table is None:
            InClass.table = torch.linspace(0, 1, x.shape[1])
        return x * InClass.table + self.frequencies * InClass.positions(8)


class Keeper(Model):
    """Stores tables in all places that Python allows."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.inner, self.fails = InClass(), fails

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        x, length = sample, sample.shape[1]
        for table in (in_a_closure, in_a_default, in_an_attribute, in_an_lru_cache, SLOTS):
            x = x + table(length)
        x = self.inner(x * in_globals(length) + in_containers(length))
        if self.fails and x.sum() > 0:
            x = x * 2
        return super().forward(x, timestep)


def kept() -> list[Any]:
    """Return the content of the tables."""
    closure = [cell.cell_contents for cell in in_a_closure.__closure__ or ()]
    return [
        *(GLOBAL, READY, hasattr(SLOTS, "kept"), dict(MAPS), dict(DEFAULTS), dict(USER_DICT)),
        *(dict(ORDERED), list(DEQUE), len(SET), len(WEAK), vars(LOCAL), NESTED["tables"][0]),
        *(c for c in closure if isinstance(c, dict)),
        *(in_a_default.__defaults__, vars(in_an_attribute), in_an_lru_cache.cache_info().currsize),
        *(InClass.table, InClass.positions.cache_info().currsize),
        InClass.__dict__["frequencies"].fget.cache_info().currsize,
    ]


def forget() -> None:
    """Empty the tables, as at the start of the process."""
    global GLOBAL, READY
    GLOBAL, READY, InClass.table = None, False, None
    for name in ("kept", "_Slots__private"):
        if hasattr(SLOTS, name):
            delattr(SLOTS, name)
    tables: list[Any] = [MAPS, DEFAULTS, USER_DICT, ORDERED, DEQUE, SET, WEAK]
    tables += [NESTED["tables"][0], vars(LOCAL), vars(in_an_attribute)]
    tables += (in_a_default.__defaults__ or ())[:1]
    tables += [c.cell_contents for c in in_a_closure.__closure__ or ()][1:]
    for table in tables:
        if hasattr(table, "clear"):
            table.clear()
    for function in (in_an_lru_cache, InClass.positions, InClass.__dict__["frequencies"].fget):
        function.cache_clear()


@pytest.fixture
def empty_tables() -> Iterator[None]:
    forget()
    yield
    forget()


@torch.no_grad()
@pytest.mark.usefixtures("empty_tables")
@pytest.mark.parametrize("fails", [False, True])
def test_tables_are_empty_after_a_capture(fails):
    before = repr(kept())
    if fails:
        with pytest.raises(fxcache.CaptureError):
            captured(Keeper(fails=True).eval(), torch.randn(2, 8), torch.tensor(3.0))
    else:
        captured(Keeper().eval(), torch.randn(2, 8), torch.tensor(3.0))
    assert repr(kept()) == before


@torch.no_grad()
@pytest.mark.usefixtures("empty_tables")
def test_tables_that_were_full_stay_full():
    model, (x, t) = Keeper().eval(), (torch.randn(2, 8), torch.tensor(3.0))
    model(x, t)
    tables = [GLOBAL, SLOTS.kept, *MAPS.values(), *ORDERED.values(), *DEQUE, InClass.table]
    hits = in_an_lru_cache.cache_info().currsize
    captured(model, x, t)
    after = [GLOBAL, SLOTS.kept, *MAPS.values(), *ORDERED.values(), *DEQUE, InClass.table]
    assert all(a is b for a, b in zip(after, tables, strict=True))
    assert in_an_lru_cache.cache_info().currsize == hits == 1


@torch.no_grad()
def test_a_capture_keeps_no_input_alive():
    """Calls are attributed by the tensors that are still alive."""
    model = fxcache.optimize(Model().eval())
    gc.disable()
    try:
        x = torch.randn(2, 8)
        model(x, torch.tensor(3.0))
        reference = weakref.ref(x)
        del x
        assert reference() is None
    finally:
        gc.enable()


SHARED: ContextVar[Any] = ContextVar("SHARED")


class InContext(Model):
    """Keeps its first input in context variables, which have no value before."""

    def __init__(self) -> None:
        super().__init__()
        self.own: ContextVar[Any] = ContextVar("own")

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        for variable in (self.own, SHARED):
            variable.set(variable.get(sample))
            sample = sample + variable.get()
        return super().forward(sample, timestep)


@pytest.mark.filterwarnings("ignore:.*change Python objects")
@torch.no_grad()
def test_context_variables_are_set_by_calls_and_not_by_captures():
    x, t = torch.randn(2, 8), torch.tensor(3.0)
    model, plain = InContext(), InContext()
    captured(model, x, t)
    assert not [v for v in copy_context().values() if isinstance(v, FakeTensor)]
    with pytest.raises(LookupError):
        model.own.get()
    expected = copy_context().run(lambda: [plain(scale * x, t) for scale in (1, 2, 3)])
    fxcache.optimize(model, fxcache.Uniform(1))
    found = copy_context().run(lambda: [model(scale * x, t) for scale in (1, 2, 3)])
    assert all(map(torch.equal, found, expected))
