"""Fits a Keras U-Net to chest CT slices with lung masks and publishes it as an ONNX bundle.

Imports point one way, and none back up; siblings between bars know nothing of each other:
commands → release → evaluation | fitting → synthetic → data | networks | labelling → config →
errors.
"""
