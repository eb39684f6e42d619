"""Tests the key of the hooks on a model's submodules."""

from typing import Any

import pytest
from torch import nn

from fxcache.runtime.hooks import Hooks
from tests.runtime.hooked import WAYS, Denoiser, Setting, post_hook, removed

pytestmark = pytest.mark.usefixtures("shared_captures")


def key_of(hooks: Hooks, model: Any, way: Setting, block: int = 1) -> int:
    with way(model.blocks[block]):
        return hooks.key(model)


@pytest.mark.parametrize("way", WAYS)
def test_equal_hooks_have_equal_keys(way):
    model, hooks = Denoiser(), Hooks()
    plain = hooks.key(model)
    first, second = key_of(hooks, model, way), key_of(hooks, model, way)
    assert first == second != plain
    assert key_of(hooks, model, way, block=2) not in (plain, first)
    assert hooks.key(model) == plain


def test_backward_hooks_count_too():
    model, hooks = Denoiser(), Hooks()
    keys = [hooks.key(model)]
    for register in ("register_full_backward_hook", "register_full_backward_pre_hook"):
        with removed(getattr(model.blocks[0], register)(lambda *_: None)):
            keys.append(hooks.key(model))
    assert len(set(keys)) == 3


def test_options_of_a_hook_count():
    def hook(*_: Any) -> None:
        """Accepts any arguments."""

    model, hooks = Denoiser(), Hooks()
    keys = []
    for options in ({}, {"with_kwargs": True}, {"always_call": True}):
        with removed(model.blocks[0].register_forward_hook(hook, **options)):
            keys.append(hooks.key(model))
    assert len(set(keys)) == 3


def test_hooks_of_the_model_itself_and_elsewhere_do_not_count():
    model, other, hooks = Denoiser(), Denoiser(), Hooks()
    plain = hooks.key(model)
    with removed(model.register_forward_hook(lambda *_: None)), post_hook(other.blocks[0]):
        assert hooks.key(model) == plain


def test_hooks_on_a_new_module_are_seen_once_the_tree_is_read_again():
    model, hooks = Denoiser(), Hooks()
    plain = hooks.key(model)
    model.blocks[0].inner = nn.Sequential(model.blocks[0].inner)
    with removed(model.blocks[0].inner.register_forward_hook(lambda *_: None)):
        hooks.forget()
        assert hooks.key(model) != plain
