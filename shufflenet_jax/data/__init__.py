"""Input: datasets, pictures and batches. Only modules of this package import TensorFlow at module level."""

import os

from shufflenet_jax import storage  # noqa: F401  it configures how TensorFlow reads from buckets

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up messages do not concern users
