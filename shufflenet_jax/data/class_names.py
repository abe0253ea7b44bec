"""When two class names mean the same class: one rule for folders, datasets, evaluation and fine-tuning.

1. Equal names are the same class. Names are compared in Unicode NFC, because file systems differ in whether they store
   an accented letter composed or decomposed.
2. Otherwise the first word decides: `n01440764` means `n01440764 tench, Tinca tinca`. One of the two names must be that
   word alone, or the word must be a WordNet id; and exactly one name in each of the two lists must begin with it. So
   `fruit apple` never means `fruit grape`.
3. A number is not a name: it is a class's position in some list, and does not describe the pictures. `3` matches
   `3`, and nothing else.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

_WORDNET_ID = re.compile(r"[nvars]\d{8}")


def is_number(name: str) -> bool:
  """Whether a name consists of digits alone, like the names that are made up for classes without names."""
  return name.isdecimal()


def match(names: Sequence[str], classes: Sequence[str]) -> dict[int, int]:
  """Finds the class that each name means.

  A name that occurs twice in a list (ImageNet has two classes `crane`) is matched only to an equal name at the same
  index.

  Args:
    names: to be matched, for instance the class folders of a dataset.
    classes: to match them to, for instance a network's, in label order.

  Returns:
    index in `names` -> index in `classes`, for the names that mean one of the classes.
  """
  matched = _add_equal(names, classes, lambda name: name, {})
  matched = _add_equal(names, classes, _composed, matched)
  counts = [Counter(map(_first_word, side)) for side in (names, classes)]
  label_of_word = {_first_word(name): label for label, name in enumerate(classes)}
  for i, name in enumerate(names):
    word = _first_word(name)
    if i not in matched and word in label_of_word and all(count[word] == 1 for count in counts) and not is_number(word):
      is_bare = word in (_composed(name), _composed(classes[label_of_word[word]]))
      if is_bare or _WORDNET_ID.fullmatch(word):
        matched[i] = label_of_word[word]
  return matched


def _add_equal(
  names: Sequence[str], classes: Sequence[str], spelling: Callable[[str], str], matched: dict[int, int]
) -> dict[int, int]:
  """`matched`, plus a match for each further name and class, neither of them matched yet, that are spelled alike."""
  labels, times, taken = defaultdict(list), Counter(map(spelling, names)), set(matched.values())
  for label, name in enumerate(classes):
    if label not in taken:
      labels[spelling(name)].append(label)
  more = {}
  for i, name in enumerate(names):
    equal = labels[spelling(name)]
    if i in equal:
      more[i] = i
    elif len(equal) == times[spelling(name)] == 1:
      more[i] = equal[0]
  return more | matched


def first_difference(names: Sequence[str], classes: Sequence[str]) -> int | None:
  """The first label that means different classes in the two lists, or None.

  A label for which either list has only a number is not compared.
  """
  matched = match(names, classes)
  pairs = enumerate(zip(names, classes))
  return next((i for i, pair in pairs if matched.get(i) != i and not any(map(is_number, pair))), None)


def _composed(name: str) -> str:
  return unicodedata.normalize("NFC", name)


def _first_word(name: str) -> str:
  return (_composed(name).split() or [name])[0]
