"""The networks and their ONNX form; may import config, errors and ``lungseg.inference``."""
