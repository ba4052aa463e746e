"""Figures of the service on this machine: ``python -m bench``, ``python -m bench load``."""
