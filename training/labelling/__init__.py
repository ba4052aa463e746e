"""Masks for CT that has none: proposed by thresholds and anatomy, decided by a person.

``stacks`` reads DICOM and puts it in order, ``propose`` numbers the air in the body with the help
of ``body`` and ``airways``, ``decisions`` holds what a person said of it, ``masks`` makes masks
of both, ``pictures`` shows them and ``label`` writes it all. Imports point that way only.
"""
