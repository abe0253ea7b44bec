"""Writes a checkpoint's network as a file that other runtimes execute: LiteRT, ONNX, StableHLO."""
