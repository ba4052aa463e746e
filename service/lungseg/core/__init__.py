"""Values and pure functions of the pipeline: numpy and scipy only, no files, no network."""
