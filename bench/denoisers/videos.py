"""Recipes of diffusers' video and audio transformers, and of those that fit nowhere else."""

import math

import diffusers
import torch
from torch import Tensor

from bench.denoisers.recipe import Config, Inputs, Recipe
from bench.denoisers.tensors import grid, rotary, text, timestep


def text_mask(full: bool, tokens: int, few: int = 5) -> Tensor:
    """The mask that goes with ``text``: the last fifth is padding."""
    length = tokens if full else few
    return (torch.arange(length) < length - length // 5).long()[None]


def video(channels: int, full: bool, frames: int, height: int, width: int) -> Tensor:
    """A latent video; small: 2 frames of 4x4."""
    return torch.randn(1, channels, *((frames, height, width) if full else (2, 4, 4)))


def video_and_text(
    config: Config, full: bool, clip: tuple[int, int, int], words: Tensor, time: float = 500.0
) -> Inputs:
    """What most video transformers take; ``clip``: frames, height and width of the latent."""
    return {
        "hidden_states": video(config["in_channels"], full, *clip),
        "timestep": timestep(time),
        "encoder_hidden_states": words,
    }


def wan(config: Config, full: bool) -> Inputs:
    """Wan 2.1 text-to-video: 81 frames of 480x832."""
    return video_and_text(config, full, (21, 60, 104), text(full, 512, config["text_dim"]))


def wan_vace(config: Config, full: bool) -> Inputs:
    return wan(config, full) | {
        "control_hidden_states": video(config["vace_in_channels"], full, 21, 60, 104),
        "control_hidden_states_scale": torch.ones(len(config["vace_layers"])),
    }


def skyreels(config: Config, full: bool) -> Inputs:
    """SkyReels V2 text-to-video: 97 frames of 544x960."""
    return video_and_text(config, full, (25, 68, 120), text(full, 512, config["text_dim"]))


def ltx(config: Config, full: bool) -> Inputs:
    """LTX-Video: 161 frames of 512x704, already in tokens."""
    frames, height, width = (21, 16, 22) if full else (2, 3, 3)
    return {
        "hidden_states": torch.randn(1, frames * height * width, config["in_channels"]),
        "encoder_hidden_states": text(full, 128, config["caption_channels"]),
        "timestep": timestep(),
        "encoder_attention_mask": text_mask(full, 128),
        "num_frames": frames,
        "height": height,
        "width": width,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


def cogvideox(config: Config, full: bool) -> Inputs:
    """CogVideoX 2B: frames before channels, no rotary embedding; its text length is fixed."""
    frames = (config["sample_frames"] - 1) // config["temporal_compression_ratio"] + 1
    size = (frames, config["in_channels"], config["sample_height"], config["sample_width"])
    few = config["max_text_seq_length"]
    return {
        "hidden_states": torch.randn(1, *size),
        "encoder_hidden_states": text(full, 226, config["text_embed_dim"], few),
        "timestep": timestep(500),
    }


def hunyuan_video(config: Config, full: bool) -> Inputs:
    """HunyuanVideo: 129 frames of 720x1280."""
    words = text(full, 256, config["text_embed_dim"])
    return video_and_text(config, full, (33, 90, 160), words) | {
        "encoder_attention_mask": text_mask(full, 256),
        "pooled_projections": torch.randn(1, config["pooled_projection_dim"]),
        "guidance": torch.full((1,), 6000.0),
    }


def mochi(config: Config, full: bool) -> Inputs:
    """Mochi: 19 frames of 480x848."""
    words = text(full, 256, config["text_embed_dim"])
    return video_and_text(config, full, (4, 60, 106), words) | {
        "encoder_attention_mask": text_mask(full, 256).bool()
    }


def stable_audio(config: Config, full: bool) -> Inputs:
    """Stable Audio Open: 128 text tokens, then the start and the length in seconds."""
    length = config["sample_size"]
    return {
        "hidden_states": torch.randn(1, config["in_channels"], length),
        "timestep": timestep(0.5),
        "encoder_hidden_states": text(full, 130, config["cross_attention_input_dim"]),
        "global_hidden_states": torch.randn(1, 1, config["global_states_input_dim"]),
        "rotary_embedding": rotary(length + 1, config["attention_head_dim"] // 2),
    }


def image_to_video(config: Config, full: bool) -> Inputs:
    """Wan's image-to-video call: latent, condition and mask in channels; CLIP's 257 tokens."""
    image = text(full, 257, config["image_dim"], few=3)
    return wan(config, full) | {"encoder_hidden_states_image": image}


def wan_frames(config: Config, full: bool) -> Inputs:
    """AnyFlow: frames before channels, two timesteps for every frame."""
    call = wan(config, full)
    latent = call["hidden_states"].transpose(1, 2)
    return call | {
        "hidden_states": latent,
        "timestep": torch.full(latent.shape[:2], 500.0),
        "r_timestep": torch.full(latent.shape[:2], 400.0),
    }


def anyflow_far(config: Config, full: bool) -> Inputs:
    """AnyFlow, frame by frame: the fourth chunk of a video, the first three in the cache."""
    chunks = list(config["chunk_partition"][:4])
    height, width = (60, 104) if full else (4, 4)
    batch, frames = 1, chunks[-1]
    heads, head_dim = config["num_attention_heads"], config["attention_head_dim"]
    tokens = height * width // 4
    long = config["full_chunk_limit"] * max(config["chunk_partition"])
    short = len(config["chunk_partition"]) - config["full_chunk_limit"] + 1
    far = short * max(config["chunk_partition"]) * (height // 4) * (width // 4)
    return wan(config, full) | {
        "hidden_states": torch.randn(batch, frames, config["in_channels"], height, width),
        "timestep": torch.full((batch, frames), 500.0),
        "r_timestep": torch.full((batch, frames), 400.0),
        "chunk_partition": chunks,
        "kv_cache": {
            layer: {
                "full_cache": torch.randn(2, batch, heads, long * tokens, head_dim),
                "compressed_cache": torch.randn(2, batch, heads, far, head_dim),
            }
            for layer in range(config["num_layers"])
        },
        "kv_cache_flag": {"num_cached_chunks": 3, "is_cache_step": False},
    }


def allegro(config: Config, full: bool) -> Inputs:
    """Allegro: 88 frames of 720x1280; rotary tables and the position of every token."""
    words = text(full, 512, config["caption_channels"])
    call = video_and_text(config, full, (22, 90, 160), words, 500)
    frames, height, width = call["hidden_states"].shape[2:]
    patches = (frames, height // config["patch_size"], width // config["patch_size"])
    tables = tuple(rotary(size, config["attention_head_dim"] // 3) for size in patches)
    positions = tuple(grid(*patches).T.unsqueeze(1))
    return call | {
        "encoder_attention_mask": text_mask(full, 512),
        "image_rotary_emb": (tables, positions),
    }


def cosmos(config: Config, full: bool) -> Inputs:
    """Cosmos text-to-world: 121 frames of 704x1280, and a padding mask in pixels."""
    words = text(full, 512, config["text_embed_dim"])
    call = video_and_text(config, full, (16, 88, 160), words, 0.5)
    height, width = call["hidden_states"].shape[3:]
    padding = torch.zeros(1, 1, 8 * height, 8 * width) if config["concat_padding_mask"] else None
    return call | {"fps": 30, "padding_mask": padding}


def easyanimate(config: Config, full: bool) -> Inputs:
    """EasyAnimate: 49 frames of 512x512."""
    return video_and_text(config, full, (13, 64, 64), text(full, 256, config["text_embed_dim"]))


def helios(config: Config, full: bool) -> Inputs:
    """Helios: the next 9 latent frames of 384x640, after 16 + 2 + 2 frames of history."""
    frames, height, width = (9, 48, 80) if full else (2, 4, 4)
    sizes = {"long": 16 if full else 4, "mid": 2, "short": 2}
    inputs = wan(config, full)
    inputs["hidden_states"] = torch.randn(1, config["in_channels"], frames, height, width)
    start = 1
    for name, size in sizes.items():
        inputs[f"latents_history_{name}"] = torch.randn(
            1, config["in_channels"], size, height, width
        )
        fresh = size - (name == "short")
        indices = torch.arange(start, start + fresh)
        if name == "short":
            indices = torch.cat([torch.zeros(1, dtype=torch.int64), indices])
        inputs[f"indices_latents_history_{name}"] = indices[None]
        start += fresh
    return inputs | {"indices_hidden_states": torch.arange(start, start + frames)[None]}


def framepack(config: Config, full: bool) -> Inputs:
    """Framepack: 9 latent frames of 720x1280, and 1 + 1, 2 and 16 frames of history after them."""
    frames, height, width = (9, 90, 160) if full else (2, 4, 4)
    far = 16 if full else 4
    history = {"clean": 2, "history_2x": 2, "history_4x": far}
    latents = {
        f"latents_{name}": torch.randn(1, config["in_channels"], size, height, width)
        for name, size in history.items()
    }
    _, own, *after = torch.arange(1 + frames + 1 + 2 + far).split([1, frames, 1, 2, far])
    first = torch.cat([torch.zeros(1, dtype=torch.int64), after[0]])
    indices = dict(zip(history, (first, *after[1:]), strict=True))
    return {
        **hunyuan_video(config, full),
        "hidden_states": torch.randn(1, config["in_channels"], frames, height, width),
        "image_embeds": text(full, 729, config["image_proj_dim"], few=3),
        "indices_latents": own,
        **latents,
        **{f"indices_latents_{name}": index for name, index in indices.items()},
    }


def hunyuan_video15(config: Config, full: bool) -> Inputs:
    """HunyuanVideo 1.5 image-to-video: 121 frames of 480x848; latent, condition and mask."""
    words = text(full, 1000, config["text_embed_dim"])
    return video_and_text(config, full, (31, 30, 53), words) | {
        "encoder_attention_mask": text_mask(full, 1000),
        "encoder_hidden_states_2": text(full, 256, config["text_embed_2_dim"], few=6),
        "encoder_attention_mask_2": text_mask(full, 256, few=6),
        "image_embeds": text(full, 729, config["image_embed_dim"], few=3),
    }


def joy_image(config: Config, full: bool) -> Inputs:
    """JoyImage edit: the reference and the new image, 1024x1024, along the second axis."""
    side = 128 if full else 4
    return {
        "hidden_states": torch.randn(1, 2, config["in_channels"], 1, side, side),
        "timestep": timestep(),
        "encoder_hidden_states": text(full, 1024, config["text_dim"]),
    }


def joy_image_plus(config: Config, full: bool) -> Inputs:
    """JoyImage edit plus: the patches of the new image and of two references, in one sequence."""
    side = 64 if full else 2
    patches = (3 * side * side, config["in_channels"], *config["patch_size"])
    words = text(full, 2048, config["text_dim"])
    return {
        "hidden_states": torch.randn(1, *patches),
        "timestep": timestep(),
        "encoder_hidden_states": words,
        "encoder_hidden_states_mask": torch.ones(words.shape[:2], dtype=torch.int64),
        "shape_list": [[(1, side, side)] * 3],
    }


def latte(config: Config, full: bool) -> Inputs:
    """Latte: 16 frames of 512x512; the size is the configuration's."""
    side = config["sample_size"]
    return {
        "hidden_states": torch.randn(1, config["in_channels"], config["video_length"], side, side),
        "encoder_hidden_states": text(full, 120, config["caption_channels"]),
        "timestep": timestep(500),
        "enable_temporal_attentions": True,
    }


def t5_film(config: Config, full: bool) -> Inputs:
    """Spectrogram diffusion: encoded notes, the encoded past, and the spectrogram to denoise."""
    length = config["targets_length"]
    notes = text(full, 2048, config["d_model"])
    past = torch.randn(1, length, config["d_model"])
    return {
        "encodings_and_masks": [
            (notes, text_mask(full, 2048).bool()),
            (past, torch.ones(1, length, dtype=torch.bool)),
        ],
        "decoder_input_tokens": torch.randn(1, length, config["input_dims"]),
        "decoder_noise_time": timestep(0.5),
    }


def music3_depth(config: Config, full: bool) -> Inputs:  # noqa: ARG001
    """MiniMax Music 3's decoder of codebooks: no denoiser; the codes of one frame so far."""
    return {"inputs_embeds": torch.randn(1, config["num_codebooks"], config["hidden_size"])}


def music3(config: Config, full: bool) -> Inputs:
    """MiniMax Music 3's flow decoder: one frame of condition for every frame of latent."""
    length = 1024 if full else 8
    return {
        "hidden_states": torch.randn(1, config["in_channels"], length),
        "timestep": timestep(0.5),
        "encoder_hidden_states": torch.randn(1, length, config["condition_dim"]),
    }


def ace_step(config: Config, full: bool) -> Inputs:
    """ACE-Step: a minute of music, the source latents and their mask beside it."""
    length = 1500 if full else 8
    latent = config["audio_acoustic_hidden_dim"]
    width = config["encoder_hidden_size"] or config["hidden_size"]
    return {
        "hidden_states": torch.randn(1, length, latent),
        "timestep": timestep(0.5),
        "timestep_r": timestep(0.5),
        "encoder_hidden_states": text(full, 768, width),
        "context_latents": torch.randn(1, length, config["in_channels"] - latent),
    }


def consisid(config: Config, full: bool) -> Inputs:
    """ConsisID: CogVideoX with rotary embedding, a face and five levels of its features."""
    inputs = cogvideox(config, full)
    _, frames, _, height, width = inputs["hidden_states"].shape
    tokens = frames * (height // config["patch_size"]) * (width // config["patch_size"])
    features = (1, 577 if full else 5, config["LFE_vit_dim"])
    return inputs | {
        "image_rotary_emb": rotary(tokens, config["attention_head_dim"]),
        "id_vit_hidden": [torch.randn(features) for _ in range(config["LFE_num_scale"])],
        "id_cond": torch.randn(1, config["LFE_id_dim"]),
    }


def kandinsky(config: Config, full: bool) -> Inputs:
    """121 frames of 512x768, channels last."""
    clip = (31, 64, 96) if full else (2, 4, 4)
    channels = config["in_visual_dim"] * (1 + config["visual_cond"]) + config["visual_cond"]
    return {
        "hidden_states": torch.randn(1, *clip, channels),
        "encoder_hidden_states": text(full, 256, config["in_text_dim"]),
        "pooled_projections": torch.randn(1, config["in_text_dim2"]),
        "timestep": timestep(),
    }


def kandinsky5(config: Config, full: bool) -> Inputs:
    """Kandinsky 5: positions for every axis."""
    call = kandinsky(config, full)
    _, frames, height, width, _ = call["hidden_states"].shape
    return call | {
        "visual_rope_pos": [torch.arange(size) for size in (frames, height // 2, width // 2)],
        "text_rope_pos": torch.arange(call["encoder_hidden_states"].shape[1]),
        "scale_factor": (1.0, 2.0, 2.0),
    }


def kandinsky6(config: Config, full: bool) -> Inputs:
    """Kandinsky 6 text-to-video-and-audio: the frames and their sound."""
    call = kandinsky(config, full)
    sound = torch.randn(1, 218 if full else 6, config["in_audio_dim"])
    return call | {"audio_hidden_states": sound, "visual_rope_pos": None}


def kandinsky6_sr(config: Config, full: bool) -> Inputs:
    """Kandinsky 6's upscaler: a tile of 512x768; latent, anchor and the anchor's mask."""
    tile = (31, 32, 48) if full else (2, 16, 16)
    return {
        "hidden_states": torch.randn(1, *tile, 2 * config["in_visual_dim"] + 1),
        "timestep": timestep(),
    }


def longcat_audio(config: Config, full: bool) -> Inputs:
    """LongCat AudioDiT: half a minute of speech."""
    length = 351 if full else 8
    words = text(full, 256, config["dit_text_dim"])
    return {
        "hidden_states": torch.randn(1, length, config["latent_dim"]),
        "encoder_hidden_states": words,
        "encoder_attention_mask": torch.ones(words.shape[:2], dtype=torch.bool),
        "timestep": timestep(0.5),
        "attention_mask": torch.ones(1, length, dtype=torch.bool),
        "latent_cond": torch.zeros(1, length, config["latent_dim"]),
    }


def ltx2(config: Config, full: bool) -> Inputs:
    """LTX-2: 121 frames of 512x768 and their sound, in tokens; each token's interval by axis."""
    frames, height, width, sound = (16, 16, 24, 126) if full else (2, 3, 3, 5)
    tokens = frames * height * width
    mask = torch.ones(1, 1024 if full else 5, dtype=torch.int64)
    return {
        "hidden_states": torch.randn(1, tokens, config["in_channels"]),
        "audio_hidden_states": torch.randn(1, sound, config["audio_in_channels"]),
        "encoder_hidden_states": text(full, 1024, config["caption_channels"]),
        "audio_encoder_hidden_states": text(full, 1024, config["caption_channels"]),
        "timestep": timestep(),
        "sigma": timestep(),
        "encoder_attention_mask": mask,
        "audio_encoder_attention_mask": mask,
        "num_frames": frames,
        "height": height,
        "width": width,
        "fps": 24.0,
        "audio_num_frames": sound,
        "video_coords": torch.rand(1, 3, tokens, 2),
        "audio_coords": torch.rand(1, 1, sound, 2),
    }


def minimax_h3(config: Config, full: bool) -> Inputs:
    """MiniMax H3: text, two channels of sound and video in one sequence, told apart by index."""
    words, sound, frames, height, width = (512, 400, 31, 22, 40) if full else (5, 4, 2, 2, 2)
    pixels = frames * height * width
    patch = math.prod(config["patch_size"]) * config["in_channels"]
    order = torch.arange(words + sound + pixels)
    audible = (order >= words) & (order < words + sound)
    return {
        "hidden_states": torch.randn(1, pixels, patch),
        "audio_hidden_states": torch.randn(1, sound, config["audio_in_channels"]),
        "encoder_hidden_states": torch.randn(1, words, config["text_dim"]),
        "timestep": torch.cat([timestep(400.0), timestep()]),
        "timestep_indices": (~audible).long(),
        "token_tags": (order < words).long() + 2 * audible.long(),
        "position_ids": torch.rand(words + sound + pixels, 3, dtype=torch.float64),
        "video_indices": order[words + sound :],
        "audio_indices": order[words : words + sound],
        "text_indices": order[:words],
    }


def motif(config: Config, full: bool) -> Inputs:
    """Motif Video: 121 frames of 736x1280; latent, condition and mask in channels."""
    words = text(full, 512, config["text_embed_dim"])
    mask = {"encoder_attention_mask": text_mask(full, 512)}
    return video_and_text(config, full, (31, 92, 160), words) | mask


def sana_video(config: Config, full: bool) -> Inputs:
    """SANA-Video: 81 frames of 480x832."""
    words = text(full, 300, config["caption_channels"])
    mask = {"encoder_attention_mask": text_mask(full, 300)}
    return video_and_text(config, full, (21, 60, 104), words) | mask


def sana_wm(config: Config, full: bool) -> Inputs:
    """SANA-WM: 161 frames of 704x1280, a pose and a camera for every latent frame."""
    frames, height, width = (21, 22, 40) if full else (3, 4, 4)
    pose = torch.eye(4).flatten().expand(1, frames, 16)
    camera = torch.full((1, frames, 4), height / 2)
    rays = (config["chunk_plucker_channels"], frames, height, width)
    return {
        "hidden_states": torch.randn(1, config["in_channels"], frames, height, width),
        "timestep": torch.full((1, 1, frames), 500.0),
        "encoder_hidden_states": text(full, 300, config["caption_channels"]).unsqueeze(1),
        "mask": text_mask(full, 300),
        "data_info": {"img_hw": torch.full((1, 2), 32.0 * height)},
        "camera_conditions": torch.cat([pose, camera], dim=-1),
        "chunk_plucker": torch.randn(1, *rays),
    }


def sana_wm_refiner(config: Config, full: bool) -> Inputs:
    """SANA-WM's refiner: three latent frames of 704x1280; one first and ten past ones cached."""
    tokens = 880 if full else 4
    inner = config["num_attention_heads"] * config["attention_head_dim"]

    def table(frames: int) -> tuple[Tensor, Tensor]:
        cos, sin = rotary(frames * tokens, inner)
        return cos[None], sin[None]

    cache = diffusers.models.transformers.transformer_sana_wm_refiner.SanaWMRefinerKVCache(
        config["num_layers"]
    )
    cache.sink_pe = table(1)
    for layer in cache.layer_caches:
        layer.store_sink(*torch.randn(2, 1, tokens, inner))
        layer.store_history(*torch.randn(2, 1, 10 * tokens, inner))
    return {
        "hidden_states": torch.randn(1, 3 * tokens, config["in_channels"]),
        "encoder_hidden_states": text(full, 1024, config["caption_channels"]),
        "timestep": torch.full((1, 3 * tokens), 900.0),
        "video_rotary_emb": table(3),
        "encoder_attention_mask": text_mask(full, 1024),
        "kv_cache": cache,
        "kv_cache_mode": "inject",
    }


def stable_audio3(config: Config, full: bool) -> Inputs:
    """Stable Audio 3: the prompt's tokens and one for the duration, which is also global."""
    return {
        "hidden_states": torch.randn(1, config["io_channels"], 1024 if full else 8),
        "timestep": timestep(0.5),
        "encoder_hidden_states": text(full, 257, config["cond_token_dim"]),
        "global_hidden_states": torch.randn(1, config["global_cond_dim"]),
        "encoder_attention_mask": text_mask(full, 257),
    }


def temporal(config: Config, full: bool) -> Inputs:
    """A U-Net's temporal layer: no denoiser; the frames of a video in the batch."""
    frames, side = (16, 32) if full else (3, 4)
    return {
        "hidden_states": torch.randn(frames, config["in_channels"], side, side),
        "num_frames": frames,
    }


def wan_animate(config: Config, full: bool) -> Inputs:
    """Wan Animate: 77 frames of 720x1280 after a reference; pose as latent, face as pixels."""
    frames, height, width = (20, 90, 160) if full else (2, 4, 4)
    face = (3, 4 * frames - 3, config["motion_encoder_size"], config["motion_encoder_size"])
    return image_to_video(config, full) | {
        "hidden_states": torch.randn(1, config["in_channels"], frames + 1, height, width),
        "pose_hidden_states": torch.randn(1, config["latent_channels"], frames, height, width),
        "face_pixel_values": torch.randn(1, *face),
    }


def wan_animate2(config: Config, full: bool) -> Inputs:
    """Wan Animate 2: lists of unbatched latents; the driving video's keys and values cached."""
    frames, height, width = (21, 60, 104) if full else (2, 4, 4)
    channels, patches = config["out_dim"], (frames, height // 2, width // 2)
    tokens = patches[1] * patches[2]
    heads = config["num_heads"]
    cache = diffusers.models.transformers.transformer_wan_animate_2.WanAnimate2KVCache(
        config["num_layers"]
    )
    for layer in cache.layer_caches:
        layer.store(*torch.randn(2, 1, frames * tokens, heads, config["dim"] // heads))
    return {
        "hidden_states": [torch.randn(channels, frames + 1, height, width)],
        "timestep": timestep(),
        "encoder_hidden_states": [text(full, 128, config["text_dim"])[0]],
        "condition_latents": [torch.randn(config["in_dim"] - channels, frames + 1, height, width)],
        "kv_cache": cache,
        "kv_cache_mode": "cached",
        "seq_len": (frames + 1) * tokens,
        "encoder_hidden_states_image": text(full, 257, 1280, few=3),
        "reference_grid_sizes": torch.tensor([patches]),
        "origin_len": 4 * frames - 3,
        "origin_area": [8 * height, 8 * width],
        "is_uncondtion": False,
    }


def cosmos3(config: Config, full: bool) -> Inputs:
    """Cosmos 3: a prompt's tokens, then those of 93 frames of 704x1280, all of them noisy."""
    words, frames, height, width = (512, 24, 44, 80) if full else (5, 2, 4, 4)
    patch = config["latent_patch_size"]
    shape = (frames, height // patch, width // patch)
    vision = math.prod(shape)
    indexes = torch.arange(words, words + vision)
    return {
        "input_ids": torch.randint(config["vocab_size"], (words,)),
        "text_indexes": torch.arange(words),
        "position_ids": torch.arange(words + vision).expand(3, -1),
        "und_len": words,
        "sequence_length": words + vision,
        "vision_tokens": [torch.randn(1, config["latent_channel"], frames, height, width)],
        "vision_token_shapes": [shape],
        "vision_sequence_indexes": indexes,
        "vision_mse_loss_indexes": indexes.clone(),
        "vision_timesteps": torch.full((vision,), 500.0),
        "vision_noisy_frame_indexes": [torch.arange(frames)],
    }


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


WAN_TINY: Config = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 16,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 4,
    "rope_max_seq_len": 32,
}

IMAGE: Config = {"in_channels": 9, "image_dim": 16, "added_kv_proj_dim": 24}
IMAGE_14B: Config = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}

COGVIDEOX_TINY: Config = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 16,
    "text_embed_dim": 16,
    "num_layers": 4,
    "sample_width": 4,
    "sample_height": 4,
    "sample_frames": 5,
    "max_text_seq_length": 5,
}

HUNYUAN_TINY: Config = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_single_layers": 4,
    "num_refiner_layers": 2,
    "text_embed_dim": 16,
    "pooled_projection_dim": 8,
    "rope_axes_dim": (4, 6, 6),
}

JOY_TINY: Config = {
    "in_channels": 4,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "text_dim": 16,
    "num_layers": 4,
    "rope_dim_list": [4, 6, 6],
}

# Cosmos resizes its padding mask with torchvision, which is not required here.
UNPADDED: Config = {"concat_padding_mask": False}

LATTE: Config = {
    "in_channels": 4,
    "out_channels": 8,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "attention_bias": True,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "caption_channels": 4096,
}

FACE: Config = {
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
    "is_train_face": True,
}

LTX2_TINY: Config = {
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "audio_in_channels": 8,
    "audio_out_channels": 8,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 16,
    "num_layers": 4,
    "caption_channels": 16,
}

RECIPES: tuple[Recipe, ...] = (
    Recipe("WanTransformer3DModel", WAN_TINY, wan),
    Recipe(
        "WanVACETransformer3DModel",
        {**WAN_TINY, "vace_layers": [0, 1, 2, 3], "vace_in_channels": 24},
        wan_vace,
    ),
    Recipe("SkyReelsV2Transformer3DModel", WAN_TINY, skyreels),
    Recipe(
        "LTXVideoTransformer3DModel",
        {
            "in_channels": 8,
            "out_channels": 8,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "cross_attention_dim": 24,
            "num_layers": 4,
            "caption_channels": 16,
        },
        ltx,
    ),
    Recipe(
        "CogVideoXTransformer3DModel",
        COGVIDEOX_TINY,
        cogvideox,
    ),
    Recipe(
        "HunyuanVideoTransformer3DModel",
        HUNYUAN_TINY,
        hunyuan_video,
    ),
    Recipe(
        "MochiTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 4,
            "pooled_projection_dim": 16,
            "in_channels": 4,
            "text_embed_dim": 16,
            "time_embed_dim": 16,
            "max_sequence_length": 5,
        },
        mochi,
    ),
    Recipe(
        "StableAudioDiTModel",
        {
            "sample_size": 16,
            "in_channels": 8,
            "num_layers": 4,
            "attention_head_dim": 16,
            "num_attention_heads": 4,
            "num_key_value_attention_heads": 2,
            "out_channels": 8,
            "cross_attention_dim": 32,
            "time_proj_dim": 16,
            "global_states_input_dim": 32,
            "cross_attention_input_dim": 32,
        },
        stable_audio,
    ),
    Recipe("ChronoEditTransformer3DModel", {**WAN_TINY, **IMAGE}, image_to_video, IMAGE_14B),
    Recipe("AnyFlowTransformer3DModel", WAN_TINY, wan_frames),
    Recipe(
        "AnyFlowFARTransformer3DModel",
        {**WAN_TINY, "chunk_partition": (1, 2, 2, 2, 1)},
        anyflow_far,
    ),
    Recipe(
        "AllegroTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 4,
            "cross_attention_dim": 24,
            "sample_height": 4,
            "sample_width": 4,
            "sample_frames": 2,
            "caption_channels": 16,
        },
        allegro,
    ),
    Recipe(
        "CosmosTransformer3DModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 4,
            "text_embed_dim": 16,
            "adaln_lora_dim": 8,
            "max_size": (4, 8, 8),
            **UNPADDED,
        },
        cosmos,
        UNPADDED,
    ),
    Recipe(
        "EasyAnimateTransformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "patch_size": 2,
            "num_layers": 4,
            "mmdit_layers": 4,
            "time_embed_dim": 16,
            "add_norm_text_encoder": True,
            "text_embed_dim": 16,
        },
        easyanimate,
        {"in_channels": 16, "out_channels": 16, "patch_size": 2, "add_norm_text_encoder": True},
    ),
    Recipe(
        "HeliosTransformer3DModel",
        {
            **{key: value for key, value in WAN_TINY.items() if key != "rope_max_seq_len"},
            "rope_dim": (4, 4, 4),
        },
        helios,
    ),
    Recipe(
        "HunyuanVideoFramepackTransformer3DModel",
        {
            **HUNYUAN_TINY,
            "has_image_proj": True,
            "image_proj_dim": 16,
            "has_clean_x_embedder": True,
        },
        framepack,
        {"has_image_proj": True, "has_clean_x_embedder": True},
    ),
    Recipe(
        "HunyuanVideo15Transformer3DModel",
        {
            "in_channels": 9,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 4,
            "num_refiner_layers": 2,
            "text_embed_dim": 16,
            "text_embed_2_dim": 12,
            "image_embed_dim": 16,
            "rope_axes_dim": (4, 6, 6),
        },
        hunyuan_video15,
    ),
    Recipe("JoyImageEditTransformer3DModel", JOY_TINY, joy_image),
    Recipe("JoyImageEditPlusTransformer3DModel", JOY_TINY, joy_image_plus),
    Recipe(
        "LatteTransformer3DModel",
        {
            **LATTE,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 4,
            "cross_attention_dim": 24,
            "sample_size": 4,
            "caption_channels": 16,
            "video_length": 2,
        },
        latte,
        LATTE,
    ),
    Recipe(
        "T5FilmDecoder",
        {
            "input_dims": 8,
            "targets_length": 8,
            "d_model": 24,
            "num_layers": 4,
            "num_heads": 2,
            "d_kv": 12,
            "d_ff": 32,
        },
        t5_film,
        latent="decoder_input_tokens",
        options={},
    ),
    Recipe(
        "MiniMaxMusic3RVQDepthDecoder",
        {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "audio_vocab_size": 16,
        },
        music3_depth,
        options={},
    ),
    Recipe(
        "MiniMaxMusic3Transformer1DModel",
        {
            "in_channels": 8,
            "condition_dim": 16,
            "num_layers": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "ff_inner_dim": 64,
            "rotary_dim": 8,
            "fourier_embedding_dim": 16,
        },
        music3,
    ),
    Recipe(
        "AceStepTransformer1DModel",
        {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "in_channels": 24,
            "audio_acoustic_hidden_dim": 8,
            "sliding_window": 2,
        },
        ace_step,
    ),
    Recipe(
        "ConsisIDTransformer3DModel",
        {
            **COGVIDEOX_TINY,
            **FACE,
            "num_attention_heads": 3,
            "cross_attn_dim_head": 8,
            "cross_attn_num_heads": 2,
            "LFE_id_dim": 16,
            "LFE_vit_dim": 16,
            "LFE_depth": 5,
            "LFE_dim_head": 8,
            "LFE_num_heads": 2,
            "LFE_num_id_token": 2,
            "LFE_num_querie": 4,
            "LFE_output_dim": 32,
        },
        consisid,
        {**FACE, "in_channels": 32, "num_attention_heads": 48, "num_layers": 42},
    ),
    Recipe(
        "Kandinsky5Transformer3DModel",
        {
            "in_text_dim": 16,
            "in_text_dim2": 12,
            "time_dim": 16,
            "model_dim": 32,
            "ff_dim": 48,
            "num_text_blocks": 2,
            "num_visual_blocks": 4,
            "axes_dims": (4, 6, 6),
        },
        kandinsky5,
    ),
    Recipe(
        "Kandinsky6Transformer3DModel",
        {
            "in_visual_dim": 4,
            "out_visual_dim": 4,
            "in_text_dim": 16,
            "in_text_dim2": 12,
            "time_dim": 16,
            "model_dim": 32,
            "ff_dim": 48,
            "num_text_blocks": 2,
            "num_visual_blocks": 4,
            "axes_dims": (4, 6, 6),
            "in_audio_dim": 6,
            "out_audio_dim": 6,
        },
        kandinsky6,
    ),
    Recipe(
        "Kandinsky6SRTransformer3DModel",
        {
            "in_visual_dim": 4,
            "out_visual_dim": 8,
            "time_dim": 16,
            "model_dim": 32,
            "ff_dim": 48,
            "num_visual_blocks": 4,
            "axes_dims": (4, 6, 6),
        },
        kandinsky6_sr,
    ),
    Recipe(
        "LongCatAudioDiTTransformer",
        {
            "dit_dim": 32,
            "dit_depth": 4,
            "dit_heads": 2,
            "dit_text_dim": 16,
            "latent_dim": 8,
        },
        longcat_audio,
    ),
    Recipe("LTX2VideoTransformer3DModel", LTX2_TINY, ltx2),
    Recipe(
        "MiniMaxH3Transformer3DModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "hidden_size": 24,
            "num_layers": 4,
            "num_refiner_layers": 2,
            "ffn_dim": 48,
            "in_channels": 4,
            "audio_in_channels": 6,
            "text_dim": 16,
            "freq_dim": 16,
            "time_embed_hidden_dim": 24,
            "time_embed_dim": 12,
            "rope_freq_dim": 2,
        },
        minimax_h3,
    ),
    Recipe(
        "MotifVideoTransformer3DModel",
        {
            "in_channels": 9,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_layers": 2,
            "num_single_layers": 4,
            "text_embed_dim": 16,
            "rope_axes_dim": (4, 6, 6),
        },
        motif,
    ),
    Recipe(
        "SanaVideoTransformer3DModel",
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 4,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 12,
            "cross_attention_dim": 24,
            "caption_channels": 16,
            "sample_size": 4,
            "rope_max_seq_len": 32,
        },
        sana_video,
    ),
    Recipe(
        "SanaWMTransformer3DModel",
        {
            "in_channels": 8,
            "num_layers": 4,
            "hidden_size": 48,
            "num_attention_heads": 2,
            "linear_head_dim": 24,
            "chunk_plucker_channels": 6,
            "caption_channels": 16,
        },
        sana_wm,
    ),
    Recipe("SanaWMLTX2RefinerTransformer3DModel", LTX2_TINY, sana_wm_refiner),
    Recipe(
        "StableAudio3DiTModel",
        {
            "io_channels": 8,
            "embed_dim": 32,
            "depth": 4,
            "num_heads": 2,
            "cond_token_dim": 16,
            "global_cond_dim": 16,
            "local_add_cond_dim": 9,
            "timestep_features_dim": 16,
            "num_memory_tokens": 4,
        },
        stable_audio3,
    ),
    Recipe(
        "TransformerTemporalModel",
        {
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "in_channels": 16,
            "num_layers": 4,
            "norm_num_groups": 4,
        },
        temporal,
        {"num_attention_heads": 8, "attention_head_dim": 64, "in_channels": 320},
    ),
    Recipe(
        "WanAnimateTransformer3DModel",
        {
            **WAN_TINY,
            "in_channels": 12,
            "latent_channels": 4,
            "image_dim": 16,
            "added_kv_proj_dim": 24,
            "motion_encoder_channel_sizes": {"4": 8, "8": 8, "16": 8},
            "motion_encoder_size": 16,
            "motion_style_dim": 8,
            "motion_dim": 4,
            "motion_encoder_dim": 8,
            "face_encoder_hidden_dim": 8,
            "face_encoder_num_heads": 2,
            "inject_face_latents_blocks": 2,
        },
        wan_animate,
        {"added_kv_proj_dim": 5120},
    ),
    Recipe(
        "WanAnimate2Transformer3DModel",
        {
            "text_len": 8,
            "in_dim": 12,
            "dim": 24,
            "ffn_dim": 32,
            "freq_dim": 16,
            "text_dim": 16,
            "out_dim": 4,
            "num_heads": 2,
            "num_layers": 4,
        },
        wan_animate2,
    ),
    Recipe(
        "Cosmos3OmniTransformer",
        {
            "head_dim": 16,
            "hidden_size": 32,
            "intermediate_size": 48,
            "latent_channel": 4,
            "num_attention_heads": 4,
            "num_hidden_layers": 4,
            "num_key_value_heads": 2,
            "patch_latent_dim": 16,
            "vocab_size": 64,
            "rope_axes_dim": (4, 2, 2),
        },
        cosmos3,
        latent="vision_tokens",
    ),
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
