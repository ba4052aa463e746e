"""From model folder to probabilities: the only package that knows ONNX Runtime."""
