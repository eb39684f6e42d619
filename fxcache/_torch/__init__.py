"""The only package that uses private APIs of torch. Each entry says why.

Tested: torch 2.13.0 (CPU build) and 2.11.0 (CUDA build, on the CPU).
"""

# Why: torch.export flattens inputs and outputs with this pytree, which has no public name.
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from fxcache._torch.aoti import MachineCode, compile_graph, cpu_instructions, pack_graphs
from fxcache._torch.attention import (
    FakeAttention,
    attention_backends,
    attention_choice,
    attention_operator,
)
from fxcache._torch.compilations import (
    Compilations,
    compilations,
    compiled_by,
    compiled_calls_wrapped,
    is_compiled,
    not_compiled,
)
from fxcache._torch.default_device import default_device
from fxcache._torch.direct_calls import with_direct_calls
from fxcache._torch.distributed import (
    dtensor_from,
    dtensors_as_operators,
    exchanges_data,
    greatest_of,
    is_collective,
    is_dtensor,
    local_part,
)
from fxcache._torch.dynamo import (
    compile_ns,
    compiled_original,
    compiler_callback,
    freezes_inputs,
    hidden_from_dynamo,
    keep_address,
)
from fxcache._torch.fakes import FakeRun
from fxcache._torch.fsdp import (
    ShardedParameter,
    ShardedUnit,
    is_fully_sharded,
    is_wrapped,
    sharded_unit,
)
from fxcache._torch.generators import seeds_refused
from fxcache._torch.hooks import (
    forget_hooks,
    global_hooks,
    global_hooks_below,
    hook_dicts,
    hooks_of,
    num_registered_hooks,
)
from fxcache._torch.onnx import exported_program, onnx_model
from fxcache._torch.operators import (
    argument_types,
    draws,
    handles_tensors,
    is_composite,
    is_vmap_step,
    returns_new_memory,
    returns_view,
    writes,
    written_arguments,
)
from fxcache._torch.parametrizations import parametrizations_computed
from fxcache._torch.sizes import expression_of, guards_of, hint_of
from fxcache._torch.subclass_dispatch import dispatching_to_classes
from fxcache._torch.subclasses import (
    bare,
    is_special,
    is_wrapper,
    plain_parts,
    rebuilt,
    without_overrides,
)
from fxcache._torch.submodules import Observed, below_autograd, is_being_traced
from fxcache._torch.tensors import (
    Extent,
    base_of,
    copy_all,
    replace_tensor,
    same_memory,
    schedule_tensor,
    share_weights,
    version_counter,
    version_of,
    weight_kind,
    weight_kind_and_version,
)
from fxcache._torch.tracing import (
    ModuleProxy,
    accept_any_keyword,
    fake_mode_for,
    is_fake,
    is_transformed,
    is_vmapped,
    no_dispatch_modes,
    traced_constants,
    unnoticed_buffers,
    untraced,
    with_code,
    without_code,
    without_lines,
)

__all__ = [
    "Compilations",
    "Extent",
    "FakeAttention",
    "FakeRun",
    "MachineCode",
    "ModuleProxy",
    "Observed",
    "ShardedParameter",
    "ShardedUnit",
    "TreeSpec",
    "accept_any_keyword",
    "argument_types",
    "attention_backends",
    "attention_choice",
    "attention_operator",
    "bare",
    "base_of",
    "below_autograd",
    "compilations",
    "compile_graph",
    "compile_ns",
    "compiled_by",
    "compiled_calls_wrapped",
    "compiled_original",
    "compiler_callback",
    "copy_all",
    "cpu_instructions",
    "default_device",
    "dispatching_to_classes",
    "draws",
    "dtensor_from",
    "dtensors_as_operators",
    "exchanges_data",
    "exported_program",
    "expression_of",
    "fake_mode_for",
    "forget_hooks",
    "freezes_inputs",
    "global_hooks",
    "global_hooks_below",
    "greatest_of",
    "guards_of",
    "handles_tensors",
    "hidden_from_dynamo",
    "hint_of",
    "hook_dicts",
    "hooks_of",
    "is_being_traced",
    "is_collective",
    "is_compiled",
    "is_composite",
    "is_dtensor",
    "is_fake",
    "is_fully_sharded",
    "is_special",
    "is_transformed",
    "is_vmap_step",
    "is_vmapped",
    "is_wrapped",
    "is_wrapper",
    "keep_address",
    "local_part",
    "no_dispatch_modes",
    "not_compiled",
    "num_registered_hooks",
    "onnx_model",
    "pack_graphs",
    "parametrizations_computed",
    "plain_parts",
    "rebuilt",
    "replace_tensor",
    "returns_new_memory",
    "returns_view",
    "same_memory",
    "schedule_tensor",
    "seeds_refused",
    "sharded_unit",
    "share_weights",
    "traced_constants",
    "tree_flatten",
    "tree_map_only",
    "tree_unflatten",
    "unnoticed_buffers",
    "untraced",
    "version_counter",
    "version_of",
    "weight_kind",
    "weight_kind_and_version",
    "with_code",
    "with_direct_calls",
    "without_code",
    "without_lines",
    "without_overrides",
    "writes",
    "written_arguments",
]
