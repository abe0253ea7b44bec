"""ShuffleNet V1 (arXiv 1707.01083) for JAX and Flax."""

__version__ = "0.1.0"
