"""Tests the canonical form of calls: names, roles, and the key of a capture."""

import math
import weakref
from enum import StrEnum
from typing import Any

import pytest
import torch
from torch import nn

import fxcache
from fxcache.program import Role
from fxcache.signature import Signature
from tests.engines import variants_of
from tests.plain import DiT, dit_inputs

EVERY = fxcache.Uniform(interval=1)
# The same timestep again tells nothing of the trajectory, which is not what is tested here.
UNKNOWN_CALLER = pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
X, T, TEXT = torch.randn(1, 16, 4), torch.tensor(900.0), torch.randn(1, 5, 16)


class Optional(DiT):
    def forward(self, t, x, y=None, *args, **kwargs):  # type: ignore[override]
        text = x.new_zeros(1, 5, 16) if y is None else y
        for other in (*args, *kwargs.values()):
            text = text + other
        return super().forward(x, t, text)


class Anything(DiT):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


class ByPosition(DiT):
    def forward(self, x, t, text=None, /, scale=1.0, *, shift=0.0):
        text = x.new_ones(1, 5, 16) if text is None else text
        return super().forward(x, t, text) * scale + shift


class ByKeyword(DiT):
    def forward(self, *, x, sigma, text):  # type: ignore[override]
        return super().forward(x, sigma, text)


class Keywords(DiT):
    def forward(self, **inputs):  # type: ignore[override]
        return super().forward(inputs["sample"], inputs["timestep"], inputs["text"])


CALLS: list[tuple[type[DiT], str | None, tuple[Any, ...], dict[str, Any]]] = [
    (Optional, "x", (T, X), {}),
    (Optional, "x", (T, X, TEXT), {}),
    (Optional, "x", (T, X, None, TEXT), {}),
    (Optional, "x", (T, X, TEXT, TEXT + 1, TEXT - 1), {}),
    (Optional, "x", (T,), {"x": X, "more": TEXT}),
    (Optional, "x", (T, X, None, TEXT), {"more": TEXT + 2}),
    (Anything, None, (X, T, TEXT), {}),
    (Anything, None, (X, T), {"text": TEXT}),
    (Anything, None, (), {"sample": X, "timestep": T, "text": TEXT}),
    (Anything, "args.0", (X, T, TEXT), {}),
    (ByPosition, None, (X, T), {}),
    (ByPosition, None, (X, T, TEXT), {"scale": 2.0}),
    (ByPosition, None, (X, T, TEXT, 2.0), {"shift": torch.ones(1)}),
    (ByKeyword, None, (), {"sigma": T, "text": TEXT, "x": X}),
    (Keywords, None, (), {"sample": X, "timestep": T, "text": TEXT}),
]


@UNKNOWN_CALLER
@torch.no_grad()
@pytest.mark.parametrize(("kind", "latent", "args", "kwargs"), CALLS)
def test_any_way_to_pass_arguments_gives_the_same_call(kind, latent, args, kwargs):
    plain = kind().eval()
    model = fxcache.optimize(kind().eval(), EVERY, capture=fxcache.CaptureConfig(latent=latent))
    for _ in range(2):
        assert torch.equal(model(*args, **kwargs), plain(*args, **kwargs))
    variants = variants_of(model)
    roles = [given.role for given in variants.program.inputs]
    assert roles.count(Role.LATENT) == 1
    assert roles.count(Role.TIMESTEP) == 1


@UNKNOWN_CALLER
@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "latent", "args"),
    [(Optional, "x", (0.5, X)), (Anything, None, (X, 3, TEXT)), (ByPosition, None, (X, 0.5))],
)
def test_numbers_may_be_arguments(kind, latent, args):
    plain = kind().eval()
    capture = fxcache.CaptureConfig(latent=latent)
    model = fxcache.optimize(kind().eval(), EVERY, capture=capture)
    tensors = [torch.tensor(a) if isinstance(a, float | int) else a for a in args]
    assert torch.equal(model(*args), plain(*tensors))


def test_arguments_have_paths():
    call = Signature(Optional, "x").call((T, X, TEXT, [TEXT, TEXT]), {"more": {"a": TEXT}})
    assert call.paths == ("t", "x", "y", "args.0.0", "args.0.1", "more.a")
    assert call.invocation[0][:3] == (T, X, TEXT)
    assert call.timestep_name == "t"
    assert list(call.exported) == ["t", "x", "y", "args", "more"]


def test_the_latent_may_come_after_the_time():
    for call in (
        Signature(Optional).call((T, X), {}),
        Signature(Keywords).call((), {"timestep": T, "sample": X, "text": TEXT}),
    ):
        assert call.latent is X
        timesteps = [i.path for i in call.inputs() if i.role is Role.TIMESTEP]
        assert timesteps in (["t"], ["timestep"])


def test_omitted_arguments_make_no_difference():
    signature = Signature(ByPosition)
    first, second = (signature.call((X, T, TEXT), kwargs) for kwargs in ({}, {"scale": 1.0}))
    assert first.key == second.key
    assert first.key != signature.call((X, T, TEXT), {"scale": 2.0}).key


WIDE, DOUBLE, META = torch.randn(1, 7, 16), TEXT.double(), TEXT.to("meta")
NULL = torch.zeros(1, 5, 16)


class Kind(StrEnum):
    A = "a"


class NullText(DiT):
    def forward(self, x, t, text=NULL, sizes=(NULL, 1.5), scale=1.5):
        return super().forward(x, t, text + sizes[0]) * scale


ALIKE: list[tuple[type[DiT], tuple[Any, ...], dict[str, Any]]] = [
    *((kind, args, kwargs) for kind, latent, args, kwargs in CALLS if latent != "args.0"),
    *((ByPosition, (X, T, text), {}) for text in (TEXT, WIDE, DOUBLE, META, None, X)),
    *((ByPosition, (X, 1, TEXT, scale), {"shift": 1}) for scale in (1, 2, 1.0, True)),
    *((ByPosition, (X, step, TEXT, 1), {"shift": 1}) for step in (2, 2.0)),
    *((NullText, (X, T, text), {}) for text in (NULL, TEXT, NULL.clone())),
    *((NullText, (X, T), {"text": text}) for text in (NULL, TEXT)),
    *((NullText, (X, T, TEXT, sizes), {}) for sizes in ((NULL, 1.5), (TEXT, 1.5))),
    *((NullText, (X, T, TEXT), {"scale": scale}) for scale in (1.5, float("1.5"), 2.0)),
    *((NullText, (x, T, NULL), {}) for x in (NULL, TEXT)),
    *((Optional, (T, X), {"more": {key: TEXT}}) for key in (1, True, 1.0, "a", Kind.A)),
    *((Optional, (T, X, TEXT), {"more": more}) for more in ({}, {"a": TEXT}, {"b": TEXT}, None)),
    *((Optional, (T, X, TEXT), {"more": more}) for more in ([TEXT], (TEXT,), [TEXT, 1], [TEXT, 2])),
    (Optional, (T, X, TEXT), {"more": TEXT, "other": WIDE}),
    (Optional, (T, X, TEXT), {"other": WIDE, "more": TEXT}),
    (Optional, (T, X, TEXT), {"more": TEXT, "other": TEXT}),
    (Optional, (T, X, TEXT), {"more": TEXT.clone(), "other": TEXT.clone()}),
]


@pytest.mark.parametrize(("kind", "args", "kwargs"), ALIKE)
def test_a_call_does_not_depend_on_earlier_calls(kind, args, kwargs):
    alone = Signature(kind).call(args, kwargs)
    for before in (other[1:] for other in ALIKE if other[0] is kind):
        signature = Signature(kind)
        signature.call(*before)
        for found in (signature.call(args, kwargs), signature.call(args, kwargs)):
            pairs = zip(alone.arguments.items(), found.arguments.items(), strict=True)
            assert all(a == b and v is w for (a, v), (b, w) in pairs)
            assert all(t is u for t, u in zip(alone.tensors, found.tensors, strict=True))
            conditioning = zip(alone.conditioning, found.conditioning, strict=True)
            assert all(t is u for t, u in conditioning)
            assert found.latent is alone.latent
            assert found.timestep is alone.timestep
            same = ("num_positional", "paths", "roles", "latent_name", "timestep_name", "key")
            assert [getattr(found, name) for name in same] == [getattr(alone, n) for n in same]


def test_autocast_is_part_of_the_form():
    signature = Signature(Optional, "x")
    first = signature.call((T, X, TEXT), {})
    with torch.autocast("cpu", torch.bfloat16):
        assert signature.call((T, X, TEXT), {}).key != first.key


def test_the_last_call_is_not_kept_alive():
    signature, text = Signature(Optional, "x"), torch.randn(1, 5, 16)
    signature.call((T, X), {"more": {"a": text}})
    reference = weakref.ref(text)
    del text
    assert reference() is None


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((X,), {"x": X, "t": T}), ((X, T, TEXT, 1.0, 2.0), {}), ((X, T), {"text": TEXT})],
)
def test_wrong_arguments_raise_type_error(args, kwargs):
    model = fxcache.optimize(ByPosition().eval(), policy=EVERY)
    with pytest.raises(TypeError), torch.no_grad():
        model(*args, **kwargs)


def test_a_signature_without_tensors_or_names_is_refused():
    with pytest.raises(fxcache.NotADenoiserError, match="passes no tensor"):
        Signature(Anything).call((1, 2), {})

    class Nothing(nn.Module):
        def forward(self) -> None: ...

    with pytest.raises(fxcache.NotADenoiserError, match="takes no inputs"):
        Signature(Nothing)


@pytest.mark.parametrize("latent", ["sample", "args", "args.first"])
def test_an_unknown_latent_is_refused(latent):
    class Positional(DiT):
        def forward(self, x, t, *args):
            return super().forward(x, t, *args)

    with pytest.raises(fxcache.ConfigError, match="has no parameter") as refused:
        Signature(Positional, latent)
    assert "args.0" in refused.value.remedy


def test_a_keyword_with_the_name_of_a_positional_parameter():
    class Both(DiT):
        def forward(self, x, t, /, **kwargs):  # type: ignore[override]
            return super().forward(x, t, kwargs["x"])

    with pytest.raises(fxcache.CaptureError, match="positional-only"):
        Signature(Both).call((X, T), {"x": TEXT})


@torch.no_grad()
def test_guidance_of_positional_arguments():
    class Doubled(DiT):
        def forward(self, x, t, /, *args):
            return super().forward(x, t, *args)

    latent, text = dit_inputs(batch=1)["sample"], dit_inputs()["text"]
    model = fxcache.optimize(
        Doubled().eval(), policy=EVERY, guidance=fxcache.GuidanceCache(low=0, high=0)
    )
    plain, both = Doubled().eval(), latent.repeat(2, 1, 1)
    timesteps = torch.linspace(900, 100, 4)
    assert torch.equal(model(both, timesteps[0], text), plain(both, timesteps[0], text))


@pytest.mark.parametrize(
    ("parameters", "latent"),
    [
        ("x, t", "x"),
        ("t, x", "x"),
        ("text_ids, position_ids, vision_tokens, vision_timesteps", "vision_tokens"),
        ("encodings_and_masks, decoder_input_tokens, decoder_noise_time", "decoder_input_tokens"),
        ("input_ids, encoder_hidden_states, micro_conds", "input_ids"),
        ("hidden_states, text_tokens, timestep", "hidden_states"),
    ],
)
def test_the_latent_by_its_name(parameters, latent):
    scope: dict[str, Any] = {"nn": nn}
    exec(f"class Model(nn.Module):\n    def forward(self, {parameters}): ...", scope)
    assert Signature(scope["Model"]).latent == latent


def test_a_wrong_name_of_the_latent_is_told_as_python_does():
    signature = Signature(DiT)
    with pytest.raises(TypeError, match="sample"):
        signature.call((), {"latent": X, "timestep": T, "text": TEXT})


@torch.no_grad()
@UNKNOWN_CALLER
def test_the_sign_of_zero_is_part_of_the_call():
    class Signed(DiT):
        def forward(self, sample, timestep, text, scale=1.0):
            return super().forward(sample, timestep, text) * math.copysign(1.0, scale)

    model, plain = fxcache.optimize(Signed().eval(), fxcache.Uniform(1)), Signed().eval()
    inputs, time = dit_inputs(), torch.tensor(500.0)
    for scale in (0.0, -0.0, 0.0, -0.0):
        found = model(timestep=time, scale=scale, **inputs)
        assert torch.equal(found, plain(timestep=time, scale=scale, **inputs))
