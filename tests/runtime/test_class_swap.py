"""Tests the class of an optimised object: its name, its identity, and other libraries' classes."""

import functools
import pickle
from collections.abc import Iterator, Sized
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.utils import parametrize

import fxcache
from fxcache.runtime.class_swap import original_of
from fxcache.runtime.module import engine_of
from tests.loops import refreshes

pytestmark = pytest.mark.usefixtures("shared_captures")


class Mini(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(channels, 8), nn.Linear(16, channels)
        self.deep, self.text = nn.Linear(8, 8), nn.Linear(6, 8)

    def __len__(self) -> int:
        return 1

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        h = self.enter(sample)
        deep = self.deep(torch.tanh(h) + self.text(text))
        return self.leave(torch.cat([deep, h], dim=-1)) * (1 + timestep / 1000)


SAMPLE, TEXT = torch.ones(1, 4), torch.ones(1, 6)


@torch.no_grad()
def outputs(model: nn.Module) -> list[Tensor]:
    timesteps = torch.tensor([900.0, 899.0, 898.0])
    return [model(i * SAMPLE, t, TEXT) for i, t in enumerate(timesteps)]


@pytest.fixture
def plain() -> nn.Module:
    return Mini(4).eval()


@pytest.fixture
def optimised() -> nn.Module:
    return fxcache.optimize(Mini(4).eval(), fxcache.Uniform(3))


def test_the_class_has_the_originals_name(optimised):
    kind = type(optimised)
    assert (kind.__name__, kind.__module__, kind.__qualname__, kind.__doc__) == (
        *("Mini", __name__, "Mini", Mini.__doc__),
    )
    assert isinstance(optimised, Mini)
    assert original_of(kind) is Mini


def test_the_class_equals_only_itself(optimised):
    kind = type(optimised)
    assert kind is not Mini
    assert kind != Mini
    assert Mini != kind
    assert kind == kind
    assert kind not in [Mini]
    assert kind not in (Mini, nn.Linear)
    assert len({kind, Mini}) == 2


def test_modules_of_one_class_share_the_optimised_class(optimised):
    assert type(fxcache.optimize(Mini(4).eval())) is type(optimised)


def test_a_model_made_by_the_optimised_class_is_not_optimised(optimised):
    made = type(optimised)(4).eval()
    assert type(made) is Mini
    assert all(map(torch.equal, outputs(made), outputs(Mini(4).eval())))
    assert engine_of(fxcache.optimize(made)) is not None


@pytest.mark.parametrize("first", ["plain", "optimised"])
def test_dictionaries_keyed_by_class(plain, optimised, first):
    classes: dict[type, str] = {}
    order = [plain, optimised] if first == "plain" else [optimised, plain]
    for module in order:
        classes.setdefault(type(module), f"wraps {id(type(module))}")
    assert all(classes[type(m)] == f"wraps {id(type(m))}" for m in order)


def test_caches_keyed_by_class(plain, optimised):
    @functools.lru_cache
    def derived(kind: Any) -> type:
        return type(kind.__name__, (kind,), {})

    assert engine_of(plain) is None
    kinds: list[Any] = [type(plain), type(optimised)]
    assert [derived(kind).__mro__[1] for kind in kinds] == [Mini, type(optimised)]


def test_functions_dispatched_by_class(plain, optimised):
    @functools.singledispatch
    def name(module: object) -> str:
        return "object"

    name.register(Sized, lambda module: "sized")
    name.register(Mini, lambda module: "Mini")
    assert [name(m) for m in (optimised, plain, optimised)] == ["Mini"] * 3

    @functools.singledispatch
    def own(module: object) -> str:
        return "object"

    own.register(type(optimised), lambda module: "optimised")
    assert [own(m) for m in (plain, optimised)] == ["object", "optimised"]


def test_a_class_with_a_metaclass_of_its_own():
    class Registered(type):
        pass

    class Known(Mini, metaclass=Registered):
        pass

    model, expected = (
        fxcache.optimize(Known(4).eval(), fxcache.Uniform(1)),
        outputs(Known(4).eval()),
    )
    assert isinstance(type(model), Registered)
    assert all(map(torch.equal, outputs(model), expected))
    assert type(fxcache.restore(model)) is Known


@pytest.fixture
def mesh(monkeypatch, tmp_path) -> Iterator[object]:
    store = f"file://{tmp_path}/store"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def reuses(model: nn.Module) -> int:
    runs = fxcache.report(model).runs
    return sum(run.steps - len(run.refreshes) for run in runs)


def test_sharded_after_optimize(mesh, plain):
    fully_shard(plain, mesh=mesh)
    expected = outputs(plain)
    model = fxcache.optimize(Mini(4).eval(), fxcache.Uniform(1))
    fully_shard(model, mesh=mesh)
    assert isinstance(model, FSDPModule)
    assert all(map(torch.equal, outputs(model), expected))
    fxcache.optimize(model, fxcache.Uniform(3))
    outputs(model)
    assert reuses(model) == 2
    fxcache.restore(model)
    assert isinstance(model, FSDPModule)
    assert type(model).__name__ == type(plain).__name__ == "FSDPMini"
    assert type(model).__mro__[1:] == type(plain).__mro__[1:]
    assert all(map(torch.equal, outputs(model), expected))


def test_sharded_before_optimize(mesh, plain):
    fully_shard(plain, mesh=mesh)
    expected, kind = outputs(plain), type(plain)
    model = fxcache.optimize(plain, fxcache.Uniform(1))
    assert all(map(torch.equal, outputs(model), expected))
    fxcache.optimize(model, fxcache.Uniform(3))
    outputs(model)
    assert reuses(model) == 2
    assert type(fxcache.restore(model)) is kind
    assert all(map(torch.equal, outputs(model), expected))


def test_a_plain_model_sharded_after_an_optimised_one(mesh, plain, optimised):
    fully_shard(optimised, mesh=mesh)
    fully_shard(plain, mesh=mesh)
    assert engine_of(plain) is None
    assert type(plain).__mro__[2] is Mini
    outputs(plain)


def test_parametrised_after_optimize(optimised):
    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    optimised.scale = nn.Parameter(torch.ones(1))
    parametrize.register_parametrization(optimised, "scale", Double())
    assert engine_of(optimised)
    fxcache.restore(optimised)
    assert parametrize.is_parametrized(optimised)
    assert optimised.scale == 2
    parametrize.remove_parametrizations(optimised, "scale")
    assert type(optimised) is Mini


def test_wrapped_for_data_parallelism(mesh):
    model = DistributedDataParallel(Mini(4).eval(), process_group=dist.group.WORLD)
    assert fxcache.optimize(model, fxcache.Uniform(3)) is model
    outputs(model)
    assert refreshes(model.module) == [[0]]
    assert fxcache.report(model).model == "Mini"
    fxcache.restore(model)
    assert type(model.module) is Mini


def test_wrapped_in_several_wrappers(plain):
    compiled: Any = torch.compile(plain, backend="eager")
    model = DataParallel(compiled)
    fxcache.optimize(model, fxcache.Uniform(3))
    assert engine_of(plain)


def test_data_parallelism_that_copies_the_module_is_refused(plain):
    model = DataParallel(plain)
    model.device_ids = [0, 1]
    with pytest.raises(fxcache.ConfigError, match="copies its module"):
        fxcache.optimize(model)
    assert engine_of(plain) is None


def test_copies_of_a_class_that_is_defined_in_a_module_are_pickled(optimised):
    twin = pickle.loads(pickle.dumps(optimised))
    assert type(twin) is type(optimised)
    assert all(map(torch.equal, outputs(twin), outputs(optimised)))
