"""The channel shuffle, the operation that the paper is named after (section 3.1)."""

import jax
import jax.numpy as jnp

# The name scope of the shuffle's instructions, by which `tpu.check` finds them in a compiled program.
SHUFFLE_SCOPE = "channel_shuffle"


def channel_shuffle(x: jax.Array, groups: int, axis: int = -1) -> jax.Array:
  """Mixes the channel groups (section 3.1, Fig. 1c): channel `i * (c // groups) + j` moves to `j * groups + i`.

  A second shuffle with `channels // groups` groups is the inverse.

  Args:
    x: any dtype and shape.
    groups: the number of groups that the channels are in; must divide c, their number.
    axis: that of the channels.

  Returns:
    The same values, dtype and shape, with the channels reordered.

  Raises:
    ValueError: `groups` does not divide the channels.
  """
  axis %= x.ndim
  before, c, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
  if groups < 1 or c % groups:
    raise ValueError(f"channel_shuffle: {c} channels do not divide into {groups} groups")
  with jax.named_scope(SHUFFLE_SCOPE):
    x = x.reshape(*before, groups, c // groups, *after)  # (..., c, ...) -> (..., g, c/g, ...)
    x = jnp.swapaxes(x, axis, axis + 1)  # (..., g, c/g, ...) -> (..., c/g, g, ...)
    return x.reshape(*before, c, *after)  # (..., c/g, g, ...) -> (..., c, ...)
