"""Denoisers of proteins."""

import torch

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import timestep


def rfd4(config: Config, full: bool) -> Inputs:
    """RFD4 Proteina: a protein's backbone and latents; which atoms bond, touch and belong."""
    size = 256 if full else 6
    residues = (1, size)
    contacts = ("hbond", "pistack", "pication", "saltbridge", "hydrophobic", "metal-coord")
    whole = torch.ones(residues, dtype=torch.int64)
    return {
        "bb_ca": torch.randn(*residues, 3),
        "local_latents": torch.randn(*residues, config["latent_dim"]),
        "bb_ca_time": timestep(0.5),
        "local_latents_time": timestep(0.4),
        "padding_mask": torch.ones(residues, dtype=torch.bool),
        "token_type": torch.zeros(residues, dtype=torch.int64),
        "atom37_mask": torch.ones(*residues, 37, dtype=torch.bool),
        "conditioning": {
            **{f"condition_{name}_1_atom": torch.zeros(*residues, 37) for name in contacts},
            "condition_index-group_1_token": whole,
            "molecule_iid": whole,
            "molecule_entity_id": whole,
            "token_bond_path_length": torch.randint(config["seq_sep_dim"], (1, size, size)),
            "is_in_context_conditioning": torch.zeros(residues, dtype=torch.bool),
            "supports_local_latent": torch.ones(residues, dtype=torch.bool),
        },
        "recycle_depth": 2,
    }


RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "RFD4ProteinaTransformer",
        {
            "nlayers": 4,
            "token_dim": 24,
            "nheads": 2,
            "dim_cond": 16,
            "pair_repr_dim": 16,
            "latent_dim": 8,
            "token_type_emb_dim": 8,
            "cath_emb_dim": 4,
            "t_emb_dim": 16,
            "seq_sep_dim": 8,
            "xt_pair_dist_dim": 6,
            "tri_mult_c": 8,
            "num_sequence_classes": 12,
        },
        rfd4,
    ),
)
