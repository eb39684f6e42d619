"""Why some pipeline classes do not pass, as far as it is known."""

TOKENS = "its latent is a grid of tokens, which differs too much from step to step to be recognised"
TIMESTEP = (
    "it makes a new timestep at each step, so that only the latent connects the calls, and the "
    "latent moves far in seven steps; `optimize(pipe)` or a session avoids that"
)
STORED = "its attention processors store values during a call, and a graph drops such effects"
GRADIENTS = "it computes gradients through the denoiser"

CAUSES: dict[str, str] = {
    "AmusedImg2ImgPipeline": TOKENS,
    "AmusedInpaintPipeline": TOKENS,
    "AmusedPipeline": TOKENS,
    "AnyFlowFARPipeline": "its mask for flex attention is a function that closes over tensors",
    "Cosmos3OmniPipeline": "its latent is not the first input: "
    '`CaptureConfig(latent="vision_tokens")` helps',
    "Flux2KleinKVPipeline": "its denoiser returns an object that holds tensors",
    "GlmImagePipeline": TIMESTEP,
    "HunyuanDiTControlNetPipeline": TIMESTEP,
    "HunyuanDiTPAGPipeline": TIMESTEP,
    "HunyuanDiTPipeline": TIMESTEP,
    "KarrasVePipeline": TIMESTEP,
    "LEditsPPPipelineStableDiffusion": STORED,
    "LTX2DFRPipeline": "its timestep is one for each token, and the latent of its sound is kept by "
    "the caller; `optimize(pipe)` or a session avoids that",
    "SanaSprintPipeline": TIMESTEP,
    "SanaWMLTX2Refiner": "calls that fill its cache of keys and values are a kind of their own, "
    "whose first call refreshes",
    "ScoreSdeVePipeline": "several calls share one noise level, and none has a prompt; "
    "`optimize(pipe)` or a session avoids that",
    "SpectrogramDiffusionPipeline": "its latent is not the first input",
    "StableDiffusionAttendAndExcitePipeline": GRADIENTS,
    "StableDiffusionParadigmsPipeline": "its batch shrinks at the end, and the first call of each "
    "size refreshes",
    "StableDiffusionPix2PixZeroPipeline": GRADIENTS,
    "StableDiffusionSAGPipeline": STORED,
    "UniDiffuserPipeline": "its second latent has the name of a prompt",
    "WuerstchenCombinedPipeline": TIMESTEP,
}
