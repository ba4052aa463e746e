"""The one error of the training tools."""


class DataError(Exception):
    """Input that can't be used, with the file's name and the remedy."""
