"""Slices that nobody scanned: phantoms and changed ones; imports data and below, never Keras."""
