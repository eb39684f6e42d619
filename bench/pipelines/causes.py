"""Why some pipeline classes do not pass, as far as it is known."""

STORED = "its attention processors store values during a call, so that the original runs it"

CAUSES: dict[str, str] = {
    "LEditsPPPipelineStableDiffusion": STORED,
    "StableDiffusionAttendAndExcitePipeline": STORED,
    "StableDiffusionParadigmsPipeline": "its batch shrinks at the end, and the first call of each "
    "size refreshes",
    "StableDiffusionPix2PixZeroPipeline": STORED,
    "StableDiffusionSAGPipeline": STORED,
}
