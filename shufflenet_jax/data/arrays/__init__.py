"""Splits whose decoded pictures fit in memory: they stay on the devices, where every batch is cut from them.

Nothing here imports TensorFlow, except `decode`, which reads the other sources.
"""
