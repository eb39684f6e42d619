"""Tests in-place writes through views of views: they are exact, or refused with the line."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fxcache.capture.replacements import fill_diagonal
from tests.capture.prepared import Prepare, assert_exact, refusal

Write = Callable[[Tensor], object]


def copies(write: Write) -> Prepare:
    """Writes to a copy of the latent."""

    def prepare(x: Tensor, _: Tensor) -> Tensor:
        copy = x.clone()
        write(copy)
        return copy

    return prepare


def masks(write: Write, *shape: int) -> Prepare:
    """Writes to its own mask, and sums it."""

    def prepare(x: Tensor, _: Tensor) -> Tensor:
        mask = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
        write(mask)
        return x + mask.reshape(-1)[:32].reshape(8, 4) + mask.sum()

    return prepare


def index_put(x: Tensor) -> None:
    x[0][2:].index_put_((torch.tensor([0, 1]),), torch.ones(4))


def masked_fill(x: Tensor) -> None:
    view = x.transpose(1, 2)[:, :2]
    view.masked_fill_(view > 0, 1.0)


def chunks(x: Tensor) -> None:
    first, second = x.chunk(2, -1)
    first.sub_(1)
    second[0].t().zero_()
    x.split(3, 1)[1].sigmoid_()


def out(x: Tensor) -> None:
    torch.add(torch.ones(2, 2), 1, out=x[0, :4][1:3, 1:3])


def strided_twice(x: Tensor) -> None:
    x[0].as_strided((3, 2), (4, 1), 4)[1:].mul_(2)
    x[:, ::2].as_strided((2,), (9,), 0).add_(1)


EXACT: dict[str, Prepare] = {
    "rows": copies(lambda x: x[0][1:].zero_()),
    "diagonal": copies(lambda x: torch.diagonal(x[0][:4, :4]).copy_(torch.arange(4.0))),
    "part of a diagonal": copies(lambda x: x[0].diagonal()[1:].fill_(7.0)),
    "index_put": copies(index_put),
    "masked_fill of a transposed view": copies(masked_fill),
    "chunks": copies(chunks),
    "out": copies(out),
    "windows": copies(lambda x: x[0].unfold(0, 2, 2).mul_(2)),
    "flat": copies(lambda x: x.view(-1)[::3].clamp_(max=0.0)),
    "bits": copies(lambda x: x[0].view(torch.int32)[1:].zero_()),
    "scatter": copies(lambda x: x[0][:, 1:].scatter_(1, torch.zeros(8, 1).long(), 5.0)),
    "as_strided": copies(lambda x: x.as_strided((2, 4), (8, 1)).copy_(torch.ones(2, 4))),
    "as_strided of a view": copies(lambda x: x[0, 2:].as_strided((4,), (5,)).fill_(1.0)),
    "views of as_strided of views": copies(strided_twice),
    "torch.as_strided": copies(lambda x: torch.as_strided(x[0], (4,), (5,), 2).neg_()),
    "as_strided of the latent": lambda x, t: x + x[0, 2:].as_strided((4,), (1,)),
    "data": copies(lambda x: x.data[0, 1:].zero_()),
    "data of data": copies(lambda x: x.data[0].data[1:].fill_diagonal_(3.0)),
    "fill_diagonal": masks(lambda m: m[:4, :4].fill_diagonal_(0), 8, 8),
    "fill_diagonal of a wide view": masks(lambda m: m[2:5].fill_diagonal_(-1), 8, 8),
    "fill_diagonal of a tall view": masks(lambda m: m[:, 2:5].fill_diagonal_(-1), 8, 8),
    "fill_diagonal of a transposed view": masks(lambda m: m[1:].T.fill_diagonal_(-1), 8, 8),
    "fill_diagonal in three dimensions": masks(lambda m: m[1].fill_diagonal_(-1), 3, 4, 4, 4),
    "fill_diagonal, wrapped": masks(lambda m: m.fill_diagonal_(-1, wrap=True), 14, 4),
    "fill_diagonal, by keyword": masks(lambda m: m[1:].fill_diagonal_(fill_value=-1.0), 8, 8),
}


@pytest.mark.sweep(10)
@pytest.mark.parametrize("prepare", EXACT.values(), ids=list(EXACT))
def test_writes_are_exact(prepare):
    assert_exact(prepare)


def rebind(x: Tensor, _: Tensor) -> Tensor:
    table = torch.zeros(4)
    table.data = torch.ones(4)
    return x + table


KEPT = torch.zeros(4)


def count(x: Tensor, _: Tensor) -> Tensor:
    KEPT[1:].add_(1)
    return x + KEPT


REFUSED: dict[str, Prepare] = {
    "assigned data": rebind,
    "a tensor of the file": count,
    "the latent": lambda x, t: x[0][1:].zero_() + x,
    "as_strided of other bits": copies(
        lambda x: x[0].view(torch.int32).as_strided((4,), (5,)).zero_()
    ),
    "wrapped diagonal of a view": masks(lambda m: m[2:].fill_diagonal_(-1, wrap=True), 14, 4),
}


@pytest.mark.parametrize("prepare", REFUSED.values(), ids=list(REFUSED))
def test_other_writes_are_refused_with_their_line(prepare):
    where = refusal(prepare).where
    assert "test_replacements.py" in where or "prepared.py" in where
    assert torch.equal(KEPT, torch.zeros(4))


@pytest.mark.parametrize("shape", [(5, 5), (5, 3), (3, 5), (1, 4), (9, 2), (3, 3, 3), (0, 3)])
@pytest.mark.parametrize("wrap", [False, True])
def test_fill_diagonal_equals_that_of_torch(shape, wrap):
    expected, found = torch.zeros(shape), torch.zeros(shape)
    expected.fill_diagonal_(3, wrap)
    assert fill_diagonal(found, 3, wrap) is found
    assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(4,), (3, 4, 3)])
def test_fill_diagonal_refuses_what_torch_refuses(shape):
    with pytest.raises(RuntimeError, match="dimensions"):
        fill_diagonal(torch.zeros(shape), 3)
