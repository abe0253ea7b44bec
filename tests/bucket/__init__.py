"""An emulated Google Cloud Storage bucket, which the real client libraries talk to over TLS.

In a test (fixtures of conftest.py; `here` is the same bucket for clients in pytest's own process):

    def test_resume(bucket):
      bucket.faults.add(Fault(status(503), {"read"}, name="metrics", times=3))
      subprocess.run([..., f"--workdir={bucket.url}/run"], env=bucket.environment())
      assert bucket.records.count("read", client="tensorflow", status=503) == 3
      assert "metrics.jsonl" not in bucket.too_fast

By hand: `python -m tests.bucket` prints the variables to export; control.py lists commands for curl.

Not emulated: access lists, object versions, soft delete, encryption keys, gRPC, hierarchical folders, and the
service's real speed. Lists and reads are consistent at once, as the service's are.
"""
