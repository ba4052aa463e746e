"""Runs of training, which never run an exported model; may import networks, synthetic, data."""
