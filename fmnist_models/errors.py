"""What a person can put right. Light to import, so that a command line can name them without loading torch."""

from __future__ import annotations


class UserError(Exception):
    """Something is wrong that a person can put right; the message says what, where and what would be valid."""

    def __str__(self) -> str:
        return printable(super().__str__())  # it may quote a stranger's file


class DataError(UserError):
    """Images are missing or damaged."""


class FileError(UserError):
    """A file is not what was written there."""


class PathError(UserError, ValueError):
    """A path that a person wrote means no place on this machine."""


class OutputError(UserError):
    """A file or folder that a person named cannot be written."""


class WeightsError(UserError):
    """Pretrained weights are missing or do not belong to the network."""


class CheckpointError(UserError):
    """A checkpoint cannot be read."""


class SavedModelError(UserError, ValueError):
    """The two files of a saved model are damaged or do not belong together."""


class DeviceError(UserError):
    """A process that holds a GPU of the cluster cannot use it."""


class ImageError(UserError):
    """A file is not an image that a garment can be read from."""


class ExportError(UserError):
    """A model cannot be exported, or what was exported does not predict as the model does."""


def printable(text: str) -> str:
    """The text with everything that a terminal would obey rather than show written out, line breaks excepted."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
