"""The metadata server of a virtual machine, and Google's token endpoint."""

import threading

from tests.bucket import messages
from tests.bucket.messages import Answer, Call, Request

PROJECT = "test-project"
ACCOUNT = "robot@test.iam.gserviceaccount.com"
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


def classify(request: Request) -> Call | None:
  """The answer to a request for a token or for a property of the machine; None for other requests."""
  path = request.path.rstrip("/")
  if path.endswith("/token") and (path == "/token" or path.startswith(("/computeMetadata", "/oauth2"))):
    return Call(request, "token")
  if path in ("", "/computeMetadata") or path.startswith("/computeMetadata/"):
    return Call(request, "metadata", name=path)
  return None


class Metadata:
  """Issues tokens "token-1", "token-2" and so on.

  Attributes:
    issued: the number of the last token.
    token_seconds: how long a token is said to last.
  """

  def __init__(self):
    self.issued, self.token_seconds = 0, 3600
    self._lock = threading.Lock()

  def answer(self, call: Call) -> Answer:
    path, flavor = call.request.path.rstrip("/"), {"Metadata-Flavor": "Google"}
    if call.operation == "token":
      with self._lock:
        self.issued += 1
        token = {"access_token": f"token-{self.issued}", "expires_in": self.token_seconds, "token_type": "Bearer"}
      return messages.as_json(token, headers=flavor)
    account = path.partition("/instance/service-accounts/")[2]
    if account and "/" not in account:
      return messages.as_json({"email": ACCOUNT, "aliases": ["default"], "scopes": SCOPES}, headers=flavor)
    text = {
      "": "computeMetadata/",
      "/computeMetadata/v1/project/project-id": PROJECT,
      "/computeMetadata/v1/project/numeric-project-id": "1",
      "/computeMetadata/v1/instance/zone": "projects/1/zones/us-central1-a",
      "/computeMetadata/v1/instance/service-accounts/default/email": ACCOUNT,
      "/computeMetadata/v1/instance/service-accounts/default/scopes": "\n".join(SCOPES),
    }.get(path)
    headers = {**flavor, "Content-Type": "application/text"}
    return Answer(404, b"Not Found", headers) if text is None else Answer(200, text.encode(), headers)
