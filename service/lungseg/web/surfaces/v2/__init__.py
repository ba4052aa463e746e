"""Open Inference Protocol v2 (KServe, Triton): an unmodified ``tritonclient.http`` works here."""
