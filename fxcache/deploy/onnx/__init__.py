"""Exports optimised models to ONNX."""
