"""Tests state objects that a model reads and writes: results and objects are exact."""

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.engines import optimized_engine
from tests.plain import WIDTH, dit_inputs
from tests.runtime.memories import (
    MEMORIES,
    STEPS,
    Buffer,
    Filled,
    Layered,
    Replaced,
    Swapped,
    WithMemory,
    assert_same_state,
    loop,
    state_of,
    steps,
    use,
)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("kind", MEMORIES)
def test_refreshing_is_exact_for_outputs_and_objects(kind):
    plain, memory, twin = WithMemory(use).eval(), kind(), kind()
    model = fxcache.optimize(WithMemory(use).eval(), policy=fxcache.Uniform(1))
    states: list[Any] = []
    expected = loop(plain, twin, lambda: states.append(deepcopy(twin)))
    after = iter(states)
    found = loop(model, memory, lambda: assert_same_state(memory, next(after)))
    assert torch.equal(found, expected)
    assert_same_state(memory, twin)


@pytest.mark.sweep(2)
@pytest.mark.parametrize("kind", MEMORIES)
def test_reuse_continues_while_the_object_changes(kind):
    model = fxcache.optimize(WithMemory(use).eval(), policy=fxcache.Uniform(3))
    memory, twin = kind(), kind()
    loop(WithMemory(use).eval(), twin)
    loop(model, memory)
    calls, refreshes = steps(model)
    assert calls == STEPS
    assert calls - refreshes >= 3
    structure, tensors = state_of(memory)
    expected_structure, expected = state_of(twin)
    assert structure == expected_structure
    assert [t.shape for t in tensors] == [t.shape for t in expected]


@torch.no_grad()
def test_a_reuse_step_writes_the_models_values():
    """The new content depends on the latent alone, and not on cached values."""
    model = fxcache.optimize(WithMemory(use).eval(), policy=fxcache.Uniform(4))
    plain, inputs = WithMemory(use).eval(), dit_inputs()
    memory, twin = Buffer(), Buffer()
    for t in torch.linspace(900, 100, STEPS):
        sample = torch.randn_like(inputs["sample"])
        model(sample, t, inputs["text"], memory)
        plain(sample, t, inputs["text"], twin)
        assert_same_state(memory, twin)
    calls, refreshes = steps(model)
    assert refreshes < calls


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
def test_tensors_of_the_object_keep_their_identity():
    model, inputs = (
        fxcache.optimize(WithMemory(use).eval(), policy=fxcache.Uniform(2)),
        dit_inputs(),
    )
    timesteps = torch.linspace(900, 100, 3)
    buffer, layered, filled, swapped = Buffer(), Layered(), Filled(), Swapped()
    keys, once = buffer.keys, buffer.once
    first, second = swapped.now, swapped.next
    for memory in (buffer, layered, filled, swapped):
        model(inputs["sample"], timesteps[0], inputs["text"], memory)
    layers, layer, held = layered.layers, layered.layers[0], filled.keys
    for memory in (buffer, layered, filled):
        model(inputs["sample"], timesteps[1], inputs["text"], memory)
    assert buffer.keys is keys
    assert buffer.once is once
    assert layered.layers is layers
    assert layers[0] is layer
    assert filled.keys is held
    assert swapped.now is second
    assert swapped.next is first


@torch.no_grad()
def test_objects_may_share_tensors():
    def both(memories: Any, seen: Tensor) -> Tensor:
        first, second = memories["all"]
        first.sum = first.keys + second.keys + seen
        second.text = first.text
        return first.sum

    plain = WithMemory(both).eval()
    model, inputs = (
        fxcache.optimize(WithMemory(both).eval(), policy=fxcache.Uniform(1)),
        dit_inputs(),
    )
    shared, text = torch.ones(2, 1, WIDTH), inputs["text"]
    made = [
        {"all": [SimpleNamespace(keys=shared, text=text), SimpleNamespace(keys=shared)]}
        for _ in range(2)
    ]
    for t in torch.linspace(900, 100, 3):
        got, expected = (
            m(inputs["sample"], t, text, memory)
            for m, memory in zip((model, plain), made, strict=True)
        )
        assert torch.equal(got, expected)
        assert_same_state(made[0]["all"], made[1]["all"])
    assert made[0]["all"][1].text is text


@torch.no_grad()
def test_two_requests_with_objects_stay_separate():
    model, plain = (
        fxcache.optimize(WithMemory(use).eval(), policy=fxcache.Uniform(1)),
        WithMemory(use).eval(),
    )
    inputs = [dit_inputs(seed=seed) for seed in range(2)]
    memories, twins = [Replaced(), Replaced()], [Replaced(), Replaced()]
    for t in torch.linspace(900, 100, 4):
        for given, memory, twin in zip(inputs, memories, twins, strict=True):
            got = model(given["sample"], t, given["text"], memory)
            assert torch.equal(got, plain(given["sample"], t, given["text"], twin))
            assert_same_state(memory, twin)


@torch.no_grad()
@pytest.mark.parametrize("level", ["once", "table"])
def test_values_from_objects_are_not_hoisted(level):
    """The caller changes the object between calls. The prompt is the only other input."""

    def held(memory: Any, seen: Tensor) -> Tensor:
        keys: Tensor = memory.keys
        return keys

    def run(model: nn.Module) -> Tensor:
        memory = Replaced()

        def change() -> None:
            memory.keys = memory.keys + 1

        return loop(model, memory, change)

    model = fxcache.optimize(WithMemory(held).eval(), policy=fxcache.Uniform(1), hoist=level)
    expected = run(WithMemory(held).eval())
    torch.testing.assert_close(run(model), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_failed_call_leaves_the_object_unchanged():
    model, inputs = (
        fxcache.optimize(WithMemory(use).eval(), policy=fxcache.Uniform(1)),
        dit_inputs(),
    )
    memory, twin = Layered(), Layered()
    model(inputs["sample"], torch.tensor(9.0), inputs["text"], memory)
    twin = deepcopy(memory)
    with pytest.raises(fxcache.FxcacheError):
        model(inputs["sample"][:, :7], torch.tensor(8.0), inputs["text"], memory)
    assert_same_state(memory, twin)


@torch.no_grad()
def test_a_view_of_an_objects_tensor_is_refused():
    def window(memory: Any, seen: Tensor) -> Tensor:
        memory.keys[:, :1] = seen
        memory.window = memory.keys[:, :1]
        return memory.window

    model, inputs = (
        fxcache.optimize(WithMemory(window).eval(), policy=fxcache.Uniform(1)),
        dit_inputs(),
    )
    with pytest.raises(fxcache.CaptureError, match=r"memory\.window shares its memory"):
        model(inputs["sample"], torch.tensor(9.0), inputs["text"], Buffered())


class Buffered:
    def __init__(self) -> None:
        self.keys = torch.zeros(2, 3, WIDTH)


@torch.no_grad()
def test_guidance_refuses_objects():
    model = fxcache.optimize(
        WithMemory(use).eval(), policy=fxcache.Uniform(1), guidance=fxcache.GuidanceCache()
    )
    inputs = dit_inputs()
    latent = inputs["sample"][:1].repeat(2, 1, 1)

    def run() -> None:
        for t in torch.linspace(900, 100, 8):
            model(latent, t, inputs["text"], Replaced())

    with pytest.raises(fxcache.CutError, match="state objects"):
        run()


@torch.no_grad()
def test_one_graph_for_all_steps_of_a_run():
    model = fxcache.optimize(WithMemory(use).eval(), policy=fxcache.Uniform(2))
    loop(model, Buffer())
    engine = optimized_engine(model)
    assert len(engine.captures) == 1


def test_a_cache_of_transformers():
    cache_utils = pytest.importorskip("transformers.cache_utils")

    def attend(memory: Any, seen: Tensor) -> Tensor:
        keys, values = memory.update(seen[:, None], seen[:, None] * 2, 0)
        return (keys * values).mean(2)

    memory, twin = cache_utils.DynamicCache(), cache_utils.DynamicCache()
    model = fxcache.optimize(WithMemory(attend).eval(), policy=fxcache.Uniform(1))
    inputs, plain = dit_inputs(), WithMemory(attend).eval()
    with torch.no_grad():
        for t in torch.linspace(900, 100, 3):
            got = model(inputs["sample"], t, inputs["text"], memory)
            assert torch.equal(got, plain(inputs["sample"], t, inputs["text"], twin))
    assert torch.equal(memory.layers[0].keys, twin.layers[0].keys)
    assert memory.get_seq_length() == twin.get_seq_length() == 3
