"""Values and pure functions of the pipeline: numpy only, no files, no network."""
