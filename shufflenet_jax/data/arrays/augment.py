"""Crops of pictures that are on the devices, computed in JAX. Every random choice is a function of a key.

They follow the same rules as those of the streams (`data/stream/augment.py`), with other random numbers. Here a crop
may begin between two pixels, and interpolation at its border also uses the picture's pixels outside of it.
"""

import jax
import jax.numpy as jnp


def training_batch(
  images: jax.Array, labels: jax.Array, ids: jax.Array, epochs: jax.Array, *, config, seed: int
) -> dict[str, jax.Array]:
  """A training batch: a random crop of each picture, a function of (seed, epoch, example) alone.

  Args:
    images: uint8 (examples, h, w, 3), the whole split.
    labels: int32 (examples,).
    ids, epochs: int32 (n,), as `order.training` yields them.
    config: the config's `data` section.
    seed: of the augmentation.

  Returns:
    {`image`: uint8 (n, size, size, 3), `label`: int32 (n,)}.
  """

  def crop(image, epoch, i):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), epoch), i)
    return random_crop(image, key, config)

  return {"image": jax.vmap(crop)(images[ids], epochs, ids), "label": labels[ids]}


def evaluation_batch(images: jax.Array, labels: jax.Array, ids: jax.Array, mask: jax.Array, *, config) -> dict:
  """An evaluation batch: the centre crop of each picture; arguments as in `training_batch`, `mask` bool (n,)."""
  return {"image": center_crop(images[ids], config), "label": labels[ids], "mask": mask}


def random_crop(image: jax.Array, key: jax.Array, config) -> jax.Array:
  """A random part of a picture, mirrored in half of the cases if the config says so; uint8 (h, w, 3) -> (s, s, 3).

  The ratio of width to height is uniform in [1 / max_crop_aspect, max_crop_aspect]. Given the ratio, the height is
  uniform from that of a crop with the area `min_crop_area` to that of the largest crop that fits. The place is uniform.
  This is the distribution of TensorFlow's `sample_distorted_bounding_box`. If even the largest crop of that ratio is
  smaller than `min_crop_area`, it is taken.
  """
  height, width, _ = image.shape
  size = config.image_size
  ratio_key, height_key, place_key, flip_key, color_key = jax.random.split(key, 5)
  ratio = jax.random.uniform(ratio_key, (), minval=1 / config.max_crop_aspect, maxval=config.max_crop_aspect)
  largest = jnp.minimum(jnp.minimum(jnp.sqrt(height * width / ratio), width / ratio), height)
  smallest = jnp.minimum(jnp.sqrt(config.min_crop_area * height * width / ratio), largest)
  crop_height = smallest + (largest - smallest) * jax.random.uniform(height_key)
  extent = jnp.stack([crop_height, crop_height * ratio])
  corner = (jnp.array([height, width], jnp.float32) - extent) * jax.random.uniform(place_key, (2,))
  scale = size / extent
  crop = _resample(image, size, scale, -corner * scale, antialias=False)
  if config.color_jitter:
    crop = _jitter(crop, color_key, config.color_jitter)
  if config.flip:
    crop = jnp.where(jax.random.bernoulli(flip_key), crop[:, ::-1], crop)
  return _to_uint8(crop)


def center_crop(images: jax.Array, config) -> jax.Array:
  """Short side to `eval_resize` pixels, then the central square; uint8 (n, h, w, 3) -> uint8 (n, s, s, 3)."""
  size, sides = config.image_size, images.shape[1:3]
  resized = [round(side * config.eval_resize / min(sides)) for side in sides]
  scale = jnp.array([to / side for to, side in zip(resized, sides)], jnp.float32)
  corner = jnp.array([round((to - size) / 2) for to in resized], jnp.float32)
  crop = jax.vmap(lambda image: _resample(image, size, scale, -corner, config.antialias))
  return _to_uint8(crop(images))


def _resample(image: jax.Array, size: int, scale: jax.Array, translation: jax.Array, antialias: bool) -> jax.Array:
  """Bilinear: uint8 (h, w, 3) -> float32 (size, size, 3); the pixel at p moves to p * scale + translation."""
  return jax.image.scale_and_translate(
    image.astype(jnp.float32), (size, size, 3), (0, 1), scale, translation, method="linear", antialias=antialias
  )


def _jitter(image: jax.Array, key: jax.Array, strength: float) -> jax.Array:
  """Brightness, contrast and saturation, each times a factor from 1 - strength to 1 + strength; float32 (h, w, 3)."""
  low, high = 1 - strength, 1 + strength
  brightness, contrast, saturation = jax.random.uniform(key, (3,), minval=low, maxval=high)
  image = image * brightness
  image = image.mean() * (1 - contrast) + image * contrast
  gray = (image * jnp.array([[[0.2989, 0.587, 0.114]]], jnp.float32)).sum(-1, keepdims=True)
  return jnp.clip(gray * (1 - saturation) + image * saturation, 0, 255)


def _to_uint8(image: jax.Array) -> jax.Array:
  return (image + 0.5).astype(jnp.uint8)  # bilinear interpolation never leaves the range
