"""Boxes and names drawn into pictures."""

import io
import itertools

import numpy as np
from PIL import Image

from shufflenet_jax.prediction import drawing


def test_texts_of_boxes_at_one_place_do_not_cover_each_other(monkeypatch):
  places = []
  place = drawing._free_place

  def noted(box, size, picture_size, used):
    x, y = place(box, size, picture_size, used)
    places.append((x, y, x + size[0], y + size[1]))
    return x, y

  monkeypatch.setattr(drawing, "_free_place", noted)
  png = io.BytesIO()
  Image.fromarray(np.zeros((200, 300, 3), np.uint8)).save(png, "PNG")
  boxes = [(f"cell {score}", (50, 40, 120, 200)) for score in ("0.9", "0.8", "0.7")]
  boxes += [("dog 0.6", (0, 250, 90, 299)), ("dog 0.5", (1, 255, 80, 299))]  # no room above, nor to the right
  drawing.drawn(png.getvalue(), boxes)
  assert len(places) == 5
  assert places[0][3] <= 50  # the best one's is above its box
  for (left, top, right, bottom), other in itertools.combinations(places, 2):
    assert left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]
  assert all(left >= 0 and top >= 0 and right <= 300 and bottom <= 200 for left, top, right, bottom in places)
