"""Writes a checkpoint's network as a file that other runtimes execute, and runs it: LiteRT, ONNX, StableHLO."""
