"""Exported models measured and compared; may import networks, synthetic and data, not fitting."""
