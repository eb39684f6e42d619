"""Runs an artifact in place of a module that a host has loaded, such as Hugging Face Spaces.

``spaces.aoti_load(module, repo_id, aoti_loader=load_into)`` of Hugging Face's package ``spaces``
downloads the folder ``package`` of a repository, and passes it here.
"""

from os import PathLike
from typing import Any

from torch import Tensor, nn

from fxcache._torch import share_weights
from fxcache.deploy.load import load
from fxcache.deploy.loaded import LoadedModel


def load_into(module: nn.Module, folder: str | PathLike[str]) -> LoadedModel:
    """Let an artifact compute what ``module`` returns, with the weights that ``module`` has.

    ``module.forward`` becomes a call of the artifact. Nothing else of ``module`` changes, and no
    weight is copied. The artifact follows ``module.to(...)`` and weights that are replaced.

    Args:
        module: The module from which the artifact was exported, or one with weights of the same
            names, shapes and dtypes, on their device.
        folder: The artifact. It may hold no weights.

    Returns:
        The loaded model, for ``fxcache.session`` and ``fxcache.report``.

    Raises:
        ArtifactError: The folder holds no artifact of this version, or needs other weights.
    """
    weights: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    weights |= dict(module.named_buffers(remove_duplicate=False))
    loaded = load(folder, weights=weights)
    for path, submodule in loaded.named_modules():
        share_weights(submodule, module.get_submodule(path))

    def forward(*args: Any, **kwargs: Any) -> Any:
        return loaded(*args, **kwargs)

    module.forward = forward
    return loaded
