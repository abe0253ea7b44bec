"""Launching on Cloud TPU; see README.md in this folder. Only the standard library, on Python 3.9 or newer."""
