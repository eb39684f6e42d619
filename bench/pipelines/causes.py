"""Why some pipeline classes do not pass, as far as it is known."""

TOKENS = "its latent is a grid of tokens, which differs too much from step to step to be recognised"
STORED = "its attention processors store values during a call, so that the original runs it"

CAUSES: dict[str, str] = {
    "AmusedImg2ImgPipeline": TOKENS,
    "AmusedInpaintPipeline": TOKENS,
    "AmusedPipeline": TOKENS,
    "AnyFlowFARPipeline": "its mask for flex attention is a function that closes over tensors",
    "LEditsPPPipelineStableDiffusion": STORED,
    "SanaWMLTX2Refiner": "calls that fill its cache of keys and values are a kind of their own, "
    "whose first call refreshes",
    "StableDiffusionAttendAndExcitePipeline": STORED,
    "StableDiffusionParadigmsPipeline": "its batch shrinks at the end, and the first call of each "
    "size refreshes",
    "StableDiffusionPix2PixZeroPipeline": STORED,
    "StableDiffusionSAGPipeline": STORED,
    "UniDiffuserPipeline": "its second latent has the name of a prompt",
}
