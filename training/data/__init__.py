"""Slices listed, read, judged, split and cached; imports config and errors, never Keras."""
