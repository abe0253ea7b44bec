"""When two class names mean the same class: one rule for folders, datasets, evaluation and fine-tuning.

1. Equal names are the same class, also where one file system composes an accent that another decomposes (Unicode NFC).
2. Otherwise the first word counts, as in `n01440764` for `n01440764 tench, Tinca tinca`: one of the two names is that
   word alone, or the word is a WordNet id; and in each of the two lists just one name begins with it. So `fruit apple`
   is never `fruit grape`.
3. A number is no name: it says where a class stands in some list, and nothing about what is in the pictures. `3` is
   equal to `3`, and to nothing else.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

_WORDNET_ID = re.compile(r"[nvars]\d{8}")


def is_number(name: str) -> bool:
  """Whether a name consists of digits alone, like the names given to classes that have none."""
  return name.isdecimal()


def match(names: Sequence[str], classes: Sequence[str]) -> dict[int, int]:
  """Finds the class that each name means.

  A name that a list holds twice (ImageNet has two kinds of `crane`) is matched only if it is at the same place in both.

  Args:
    names: to be matched, for instance the class folders of a data set.
    classes: to match them to, for instance a network's, in label order.

  Returns:
    index in `names` -> index in `classes`; names that mean none of the classes are left out.
  """
  found = _match_equal(names, classes, lambda name: name, {})
  found = _match_equal(names, classes, _composed, found)
  counts = [Counter(map(_first_word, side)) for side in (names, classes)]
  place = {_first_word(of_class): i for i, of_class in enumerate(classes)}
  for i, name in enumerate(names):
    word = _first_word(name)
    if i not in found and word in place and all(count[word] == 1 for count in counts) and not is_number(word):
      is_bare = word in (_composed(name), _composed(classes[place[word]]))
      if is_bare or _WORDNET_ID.fullmatch(word):
        found[i] = place[word]
  return found


def _match_equal(
  names: Sequence[str], classes: Sequence[str], spelling: Callable[[str], str], found: dict[int, int]
) -> dict[int, int]:
  """`found`, and of the other classes what is equal in a spelling."""
  places, times, taken = defaultdict(list), Counter(map(spelling, names)), set(found.values())
  for i, of_class in enumerate(classes):
    if i not in taken:
      places[spelling(of_class)].append(i)
  more = {}
  for i, name in enumerate(names):
    equal = places[spelling(name)]
    if i in equal:
      more[i] = i
    elif len(equal) == times[spelling(name)] == 1:
      more[i] = equal[0]
  return more | found


def first_difference(names: Sequence[str], classes: Sequence[str]) -> int | None:
  """The first label that stands for another class in `names` than in `classes`; None if there is none.

  Where either has only a number, there is nothing to compare.
  """
  found = match(names, classes)
  pairs = enumerate(zip(names, classes))
  return next((i for i, pair in pairs if found.get(i) != i and not any(map(is_number, pair))), None)


def _composed(name: str) -> str:
  return unicodedata.normalize("NFC", name)


def _first_word(name: str) -> str:
  return (_composed(name).split() or [name])[0]
