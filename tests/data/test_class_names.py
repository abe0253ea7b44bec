"""Which names mean the same class."""

import unicodedata

import pytest

from shufflenet_jax.data import class_names

ACCENT = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize(
  ("names", "classes", "expected"),
  [
    (["sky", "apple"], ["apple", "grass", "sky"], {0: 2, 1: 0}),
    (["n01440764", "n01443537"], ["n01443537 goldfish", "n01440764 tench, Tinca tinca"], {0: 1, 1: 0}),
    (["n01440764 tench"], ["n01440764 tench, Tinca tinca"], {0: 0}),  # a WordNet id says it all
    (["n01440764 tench, Tinca tinca"], ["n01440764"], {0: 0}),
    (["fruit apple"], ["fruit grape"], {}),
    (["fruit apple", "fruit pear"], ["fruit grape", "fruit apple"], {0: 1}),
    (["fruit"], ["fruit apple", "fruit grape"], {}),  # which of them?
    (["fruit"], ["fruit apple", "fruit"], {0: 1}),
    (["fruit apple", "fruit"], ["fruit apple"], {0: 0}),
    (["fruit pear", "fruit"], ["fruit apple"], {}),
    (["1 apple"], ["1 grape"], {}),
    (["1"], ["1 apple"], {}),
    (["3", "4"], ["4", "3"], {0: 1, 1: 0}),
    (["03"], ["3"], {}),
    (["Apple"], ["apple"], {}),
    (["crane", "newt", "crane"], ["crane", "newt", "crane"], {0: 0, 1: 1, 2: 2}),
    (["newt", "crane", "crane"], ["crane", "newt", "crane"], {0: 1, 2: 2}),  # which crane is the other?
    ([ACCENT[0]], [ACCENT[1]], {0: 0}),
    (list(ACCENT), list(ACCENT), {0: 0, 1: 1}),
    (list(ACCENT), [ACCENT[0]], {0: 0}),  # two folders are not one class
    (list(ACCENT), [ACCENT[1]], {1: 0}),
    ([" ", ""], ["a", " "], {0: 1}),
    ([], ["a"], {}),
  ],
)
def test_names_are_matched(names, classes, expected):
  assert class_names.match(names, classes) == expected


@pytest.mark.parametrize(
  ("names", "classes", "expected"),
  [
    (["ant", "bee"], ["ant", "bee", "cat"], None),
    (["ant", "bee", "cat"], ["ant", "cat", "bee"], 1),
    (["ant", "2", "cat"], ["7", "bee", "cat"], None),
    (["ant", "2", "cat"], ["7", "bee", "dog"], 2),
    (["fruit apple", "fruit pear"], ["fruit grape", "fruit pear"], 0),
    (["n01440764"], ["n01440764 tench"], None),
  ],
)
def test_the_first_label_of_another_class_is_found(names, classes, expected):
  assert class_names.first_difference(names, classes) == expected
