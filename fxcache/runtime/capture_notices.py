"""What a user must know about a new capture: the arguments of ``Notices.warn``."""

from collections.abc import Iterator

import torch
from torch import nn

from fxcache.capture.provided import ProvidesPrograms
from fxcache.opaque import described
from fxcache.program import Program
from fxcache.rewrite.variants import Variants
from fxcache.runtime.notices import NO_FASTER

Notice = tuple[str, str, str]
UNTRACED = "torch.export cannot trace some submodules, which graphs call as they are"
CALLED_AS_IS = "Results stay exact, but these submodules are not compiled, and are in no artifact."
TRACE_IT = (
    "If that matters, change that line so that it neither branches on values nor leaves PyTorch."
)
ALL_THE_SAME = "If other kinds of call reuse values, as the report shows, nothing need be done."
FAST_PATH = "the model's nn.MultiheadAttention may take torch's fast path, which no graph contains"
ROUNDED = "Results may differ from the original's by rounding."
NO_FAST_PATH = "For equal bits, call torch.backends.mha.set_fastpath_enabled(False)."
FIXED = "the model fixes sizes that CaptureConfig(dynamic=...) leaves open"
OWN_CAPTURES = "Each other size gets a capture of its own."
LEAVE_OPEN = (
    "Read sizes from x.shape in the model, not with len(x), int(...) or a loop over x, and leave "
    "open the sizes that must be equal to these."
)
UNUSED = "graphs leave out calls whose results the model does not use"
OTHER_NUMBERS = (
    "What the model draws after such a call are other random numbers; checks do not run."
)
NOT_NEEDED = "Remove these calls from the model."


def notices_of(module: nn.Module, variants: Variants) -> Iterator[Notice]:
    """Yield the notices about a new capture of ``module``."""
    for submodules in described(variants.program.opaque):
        yield f"{UNTRACED}: {submodules}", TRACE_IT, CALLED_AS_IS
    fixed = [] if isinstance(module, ProvidesPrograms) else fixed_sizes(variants.program)
    if fixed:
        yield f"{FIXED}: {', '.join(fixed)}", LEAVE_OPEN, OWN_CAPTURES
    if unused := dict.fromkeys(variants.program.unused):
        yield f"{UNUSED}: {', '.join(unused)}", NOT_NEEDED, OTHER_NUMBERS
    if not variants.plan.groups:
        reason = variants.plan.reason
        yield f"one kind of call runs in full at every step: {reason}", ALL_THE_SAME, NO_FASTER
    if layers := fast_paths(module):
        yield f"{FAST_PATH}: {', '.join(layers)}", NO_FAST_PATH, ROUNDED


def fixed_sizes(program: Program) -> list[str]:
    """Return the sizes that were to vary, and that the trace fixed all the same.

    torch.export fixes every size of one, whatever the model does. Sizes of inputs whose values are
    constants of the graph cannot vary.
    """
    paths = [given.path for given in program.inputs]
    return [
        f"{paths[index]}, dimension {dim}: {size}"
        for (index, dim), size in program.sizes.expressions.items()
        if isinstance(size, int) and size != 1 and paths[index] not in program.specialized
    ]


def fast_paths(module: nn.Module) -> list[str]:
    """Return the paths of attention layers that may run one fused operator.

    They do so for self-attention in eval mode without gradients, but never in a trace.
    """
    if not torch.backends.mha.get_fastpath_enabled():
        return []
    return [path for path, layer in module.named_modules() if has_fast_path(layer)]


def has_fast_path(layer: nn.Module) -> bool:
    """Return whether the layer's settings allow the fast path."""
    if not isinstance(layer, nn.MultiheadAttention) or layer.training or not layer.batch_first:
        return False
    plain = layer.bias_k is None and layer.bias_v is None and not layer.add_zero_attn
    return plain and layer._qkv_same_embed_dim and layer.num_heads % 2 == 0
