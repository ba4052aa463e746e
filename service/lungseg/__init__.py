"""lungseg's HTTP service: chest CT slices in, lung masks out (research use only)."""
