"""An emulated Google Cloud Storage bucket, which the real client libraries talk to over TLS."""
