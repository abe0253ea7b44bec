"""Launching on Cloud TPU: see README.md here. Standard library only, on Python 3.9 or newer."""
