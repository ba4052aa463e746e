"""Fits a Keras U-Net to chest CT slices with lung masks and publishes it as an ONNX bundle."""
