"""lerobot: the diffusion policy's U-Net over actions."""

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "lerobot"
STATE, ACTION, STEPS = 6, 4, 20


def modeling() -> Any:
    """Import the policy without the other policies, one of which does not import here."""
    name = "lerobot.policies"
    if name not in sys.modules:
        package = ModuleType(name)
        spec = find_spec("lerobot")
        assert spec is not None
        package.__path__ = [f"{root}/policies" for root in spec.submodule_search_locations or ()]
        sys.modules[name] = package
    return importlib.import_module("lerobot.policies.diffusion.modeling_diffusion")


def actions() -> Subject:
    module = modeling()
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig

    state = PolicyFeature(FeatureType.STATE, (STATE,))
    config = DiffusionConfig(
        input_features={
            "observation.state": state,
            "observation.environment_state": PolicyFeature(FeatureType.ENV, (STATE,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTION,))},
        down_dims=(16, 32),
        diffusion_step_embed_dim=16,
        num_inference_steps=STEPS,
        noise_scheduler_type="DDIM",
        device="cpu",
    )
    model: Any = seeded(lambda: module.DiffusionModel(config))
    seen = torch.randn(1, config.n_obs_steps, STATE)
    batch = {"observation.state": seen, "observation.environment_state": seen}
    return Subject({"unet": model.unet}, lambda: model.generate_actions(batch))


RECIPES = (
    ForeignRecipe(
        PACKAGE, "DiffusionConditionalUnet1d", "DiffusionModel.generate_actions", actions
    ),
)
