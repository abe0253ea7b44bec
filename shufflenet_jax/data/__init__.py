"""Input: datasets, pictures and batches. Only modules of this package import TensorFlow at module level."""

from shufflenet_jax import (
  startup,
  storage,  # noqa: F401  it configures how TensorFlow reads from buckets
)

startup.quiet_tensorflow()
