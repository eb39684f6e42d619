"""Tests that random numbers of Python and NumPy are not frozen, and that other threads may draw."""

import random
import threading

import numpy as np
import numpy.random  # NumPy would load it at the first draw, after the state was compared
import pytest
import torch
from torch import Tensor

from fxcache.capture.randomness import GeneratorStates
from tests.capture.prepared import Prepared, calls, captured, refusal

DRAWS = {
    "NumPy's array": lambda x, t: x + torch.from_numpy(numpy.random.rand(4).astype(np.float32)),
    "NumPy's number": lambda x, t: x * float(numpy.random.rand()),
    "Python's number": lambda x, t: x * random.random(),
}


@pytest.mark.parametrize("prepare", DRAWS.values(), ids=list(DRAWS))
def test_random_constants_are_refused(prepare):
    before = GeneratorStates()
    assert "random numbers" in refusal(prepare).what
    assert GeneratorStates() == before


def test_draws_of_other_threads_are_accepted():
    def draw_elsewhere(x: Tensor, _: Tensor) -> Tensor:
        thread = threading.Thread(target=lambda: (random.random(), numpy.random.rand()))
        thread.start()
        thread.join()
        return x + torch.from_numpy(np.arange(4, dtype=np.float32))

    before = GeneratorStates()
    assert captured(Prepared(draw_elsewhere).eval(), *calls()[0]).weights
    assert GeneratorStates() != before


def test_torch_draws_at_every_call():
    """A graph can express draws of torch."""
    program = captured(Prepared(lambda x, t: x + torch.rand_like(x)).eval(), *calls()[0])
    assert any("rand" in str(node.target) for node in program.graph.nodes)
