"""Commands to a running server by HTTP, for use with curl.

curl 127.0.0.1:PORT/control/requests            totals; with ?all=1 every request
curl 127.0.0.1:PORT/control/faults              the active faults, and how often each struck
curl -d '{"effect": "status", "number": 503, "operations": ["read"], "name": "metrics", "times": 3}' .../control/faults
curl -d '{"ready_made": "no_leave_to_write"}' .../control/faults
curl -X DELETE .../control/faults               or /control/faults/2, the second of them
curl -d '{"latency": 0.05, "one_write_a_second": false}' .../control/settings
curl -X POST .../control/reset                  deletes faults, records and the list of writes that came too fast
"""

import dataclasses
import json

from tests.bucket import errors, faults, messages
from tests.bucket.messages import Answer, Request

READY_MADE = {
  "no_such_bucket": faults.no_such_bucket,
  "no_leave_to_read": faults.no_leave_to_read,
  "no_leave_to_write": faults.no_leave_to_write,
  "no_leave_to_see_bucket": faults.no_leave_to_see_bucket,
  "some_fail": faults.some_fail,
}
EFFECTS = ("status", "reset", "lose answer", "cut", "slow", "trickle", "corrupt")


def answer(server, request: Request) -> Answer:
  """Executes a command; answers 400 with the reason if it is not a valid one."""
  try:
    value = _carry_out(server, request, *request.path.split("/")[2:])
  except (TypeError, ValueError, KeyError, IndexError) as error:
    return messages.as_json({"error": f"{type(error).__name__}: {error}"}, 400)
  except errors.Refusal as refusal:
    return messages.as_json({"error": refusal.message}, refusal.status)
  return Answer(200, json.dumps(value, indent=1).encode() + b"\n", {"Content-Type": "application/json"})


def _carry_out(server, request: Request, what: str, number: str = "") -> object:
  match request.method, what:
    case "GET", "requests":
      every = [dataclasses.asdict(x) for x in server.records.all()] if request.query.get("all") else None
      return every or {**server.records.summary(), "too_fast": server.too_fast}
    case "GET", "faults":
      pass
    case "POST", "faults":
      server.faults.add(*_faults_of(server, request.json()))
    case "DELETE", "faults":
      in_force = server.faults.all()
      server.faults.remove(*([in_force[int(number) - 1]] if number else in_force))
    case "POST", "settings":
      _set(server, request.json())
      return {"latency": server.latency, "one_write_a_second": server.store.one_write_a_second}
    case "POST", "reset":
      server.faults.clear()
      server.records.clear()
      server.store.too_fast.clear()
    case _:
      raise ValueError(f"{request.method} {request.path} is not one of the commands at the top of control.py")
  return [{"number": i + 1, "fault": str(x), "struck": x.struck} for i, x in enumerate(server.faults.all())]


def _faults_of(server, order: dict) -> list[faults.Fault]:
  if ready_made := order.pop("ready_made", None):
    if ready_made == "expired_tokens":
      return faults.expired_tokens(server.metadata.issued, **order)
    if ready_made not in READY_MADE:
      raise ValueError(f"ready_made={ready_made!r}; there are {', '.join([*READY_MADE, 'expired_tokens'])}")
    return READY_MADE[ready_made](**order)
  kind = order.pop("effect", None)
  if kind not in EFFECTS:
    raise ValueError(f"effect={kind!r}; there are {', '.join(EFFECTS)}")
  return [faults.Fault(faults.Effect(kind, order.pop("number", 0), order.pop("message", "")), **order)]


def _set(server, order: dict) -> None:
  known = {"latency": server, "one_write_a_second": server.store, "deletes_are_writes": server.store}
  known |= {"page_size": server.api, "public": server.api, "token_seconds": server.metadata}
  for name, value in order.items():
    if name not in known:
      raise ValueError(f"{name!r} is no setting; there are {', '.join(known)}")
    setattr(known[name], name, value)
