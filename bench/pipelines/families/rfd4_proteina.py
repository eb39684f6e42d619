"""The pipeline of RFD4 Proteina, which designs proteins."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from bench.denoisers.proteins import rfd4
from bench.pipelines.parts import assembled, denoiser, model
from bench.pipelines.recipe import PipelineRecipe

RESIDUE_TYPES, TOKEN_TYPES, ATOMS = 12, 7, 37
RECYCLES = (2, 2, 2, 2, 1, 1, 1)  # how often each step repeats the trunk


def schedule(mode: str, noise: str) -> Any:
    return diffusers.RFD4ProteinaScheduler(
        schedule_mode=mode, noise_mode=noise, tsr_k=1.0, tsr_sigma=1.0, tail_steps=2
    )


def rfd4_proteina() -> Any:
    autoencoder = model(
        diffusers.RFD4ProteinaAutoencoder,
        atom37_mask=[[True] * ATOMS] * RESIDUE_TYPES,
        allowed_residue_types=[[True] * RESIDUE_TYPES] * TOKEN_TYPES,
        latent_dim=8,
        n_residue_types=RESIDUE_TYPES,
        num_token_types=TOKEN_TYPES,
        nlayers=2,
        token_dim=24,
        nheads=2,
        dim_cond=16,
        pair_repr_dim=16,
        token_type_emb_dim=8,
    )
    return assembled(
        "RFD4ProteinaPipeline",
        transformer=denoiser("RFD4ProteinaTransformer"),
        vae=autoencoder,
        bb_ca_scheduler=schedule("log", "tan"),
        local_latents_scheduler=schedule("power", "1/t"),
        recycle_depths=list(RECYCLES),
    )


def design() -> Mapping[str, Any]:
    """Ask for a protein of six residues of unknown sequence."""
    features = rfd4({"latent_dim": 8, "seq_sep_dim": 8}, False)
    masks = {name: features[name] for name in ("padding_mask", "token_type", "atom37_mask")}
    conditions = dict(features["conditioning"])
    for name in ("is_in_context_conditioning", "supports_local_latent"):
        masks[name] = conditions.pop(name)
    unknown = torch.zeros(masks["padding_mask"].shape, dtype=torch.int64)
    conditions["condition_sequence_1_residue"] = unknown
    return {**masks, "conditioning_features": conditions, "output_type": "pt"}


RECIPES = (PipelineRecipe("RFD4ProteinaPipeline", rfd4_proteina, design, len(RECYCLES)),)
