"""The channel shuffle, the operation that the paper is named after (section 3.1)."""

import jax
import jax.numpy as jnp

# The name scope of the shuffle's instructions, by which `tpu.check` finds them in a compiled program.
SHUFFLE_SCOPE = "channel_shuffle"


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
  """Mixes the channel groups (section 3.1, Fig. 1c): channel `i * (c // groups) + j` moves to `j * groups + i`.

  A second shuffle with `channels // groups` groups is the inverse.

  Args:
    x: any dtype, shape (..., c); in the network (n, h, w, c).
    groups: the number of groups that the channels are in; must divide c.

  Returns:
    The same values, dtype and shape, with the channels reordered.

  Raises:
    ValueError: `groups` does not divide the channels.
  """
  *batch, c = x.shape
  if groups < 1 or c % groups:
    raise ValueError(f"channel_shuffle: {c} channels do not divide into {groups} groups")
  with jax.named_scope(SHUFFLE_SCOPE):
    x = x.reshape(*batch, groups, c // groups)  # (n, h, w, c) -> (n, h, w, g, c/g)
    x = jnp.swapaxes(x, -1, -2)  # (n, h, w, g, c/g) -> (n, h, w, c/g, g)
    return x.reshape(*batch, c)  # (n, h, w, c/g, g) -> (n, h, w, c)
