"""The pipeline classes without a recipe, and why."""

ONNX = "its U-Net is a session of ONNX Runtime, not a module"
TOKENS = "its model gets tokens and no timestep; fxcache cannot tell which call is which step"
NO_LOOP = "it calls no denoiser in a loop"

LEFT_OUT: dict[str, str] = {
    "DiffusionGemmaPipeline": TOKENS,
    "EasyAnimateControlPipeline": "diffusers 0.42.1 cannot call it: its `encode_prompt` does not "
    "take the `text_encoder_index` that its `__call__` passes",
    "FluxPriorReduxPipeline": NO_LOOP,
    "LLaDA2Pipeline": TOKENS,
    "LTX2LatentUpsamplePipeline": NO_LOOP,
    "LTX2VideoDiffusionDecodePipeline": NO_LOOP,
    "LTXLatentUpsamplePipeline": NO_LOOP,
    "OnnxStableDiffusionImg2ImgPipeline": ONNX,
    "OnnxStableDiffusionInpaintPipeline": ONNX,
    "OnnxStableDiffusionPipeline": ONNX,
    "OnnxStableDiffusionUpscalePipeline": ONNX,
    "OnnxStableDiffusionInpaintPipelineLegacy": ONNX,
    "StableDiffusionOnnxPipeline": ONNX,
    "VersatileDiffusionDualGuidedPipeline": "diffusers 0.42.1 cannot run it: its U-Net passes "
    "`encoder_attention_mask`, which `DualTransformer2DModel.forward` does not take",
    "VersatileDiffusionPipeline": "it cannot be called; its methods build the other three",
}
