"""From a finished run to the next version of a model; may import all but commands."""
