"""What determines the bytes of a prepared dataset, so that only the same call continues an unfinished one."""

import hashlib
import json
import os

from shufflenet_jax import storage
from shufflenet_jax.data.prepare.options import QUALITY, Options
from shufflenet_jax.data.prepare.shards import Shard
from shufflenet_jax.data.prepare.source import Source
from shufflenet_jax.errors import UserError

FILE = "prepare_plan.json"  # in the dataset's folder


def make(
  options: Options, version: str, sources: dict[str, Source], shards: dict[str, list[Shard]], further: dict
) -> dict:
  """The plan, as JSON values. Unfinished datasets hold such plans, so keys and values must never change.

  `further` has the entries that only one kind of dataset (with classes, or with boxes) adds to its plan.

  --skip_bad and --allow_partial are not part of it: they decide whether there will be a dataset, but do
  not affect its bytes.
  """
  treatment = "as they came"
  if options.short_side:
    treatment = f"short side {options.short_side}, quality {options.quality or QUALITY}"
    treatment += ", upright" if options.upright else ""
  plan = {"name": options.name, "version": version, "pictures": treatment}
  for split, source in sources.items():
    listing = hashlib.sha256()
    for p in source.pictures:
      listing.update(os.fsencode(f"{p.name}\0{p.label}\0{p.size}\n"))
    plan[f"{split} pictures"] = len(source.pictures)
    plan[f"{split} bytes"] = sum(p.size for p in source.pictures)
    plan[f"{split} names and sizes"] = f"sha256 {listing.hexdigest()}"
    plan[f"{split} shards"] = len(shards[split])
  return plan | further


def check_same(plan: dict, folder: str) -> None:
  """Compares the plan with the one in a folder, or writes it there if there is none.

  Raises:
    UserError: the plans differ.
  """
  path = storage.join(folder, FILE)
  try:
    earlier = json.loads(storage.read_bytes(path))
  except FileNotFoundError:
    storage.write_text(path, json.dumps(plan, indent=2))
    return
  differing = [f"{key}: {earlier.get(key)} then, {plan[key]} now" for key in plan if earlier.get(key) != plan[key]]
  if differing:
    raise UserError(
      f"{folder} was begun with other pictures or flags: {'; '.join(differing)}; use the same pictures and flags,"
      " or choose another --name or --to, or remove the folder"
    )
