"""What can go wrong with the log on disk, each as a sentence for the operator."""


class StoreError(Exception):
    """The log can't do what was asked; the text is a sentence for the operator."""


class LockedError(StoreError):
    """Another broker uses the directory."""


class FormatError(StoreError):
    """The directory was written in a format that this version doesn't know."""


class UnwritableError(StoreError):
    """The directory can't be created, written or locked."""


class DiskFullError(StoreError):
    """There is no room for a batch. Nothing of it was kept and it can be tried again."""


class FsyncError(StoreError):
    """Writing or syncing failed for another reason than space. The engine refuses everything after.

    What the system holds in memory can no longer be believed, so only a restart helps.
    """


class TrimmedError(StoreError):
    """What was to be read has been trimmed.

    Attributes:
        position: where the read began
    """

    def __init__(self, text: str, position: int) -> None:
        super().__init__(text)
        self.position = position


class UnreadableError(StoreError):
    """A file can't be read at this moment, which says nothing about what it holds."""


class CorruptError(StoreError):
    """A file does not hold what was written.

    Attributes:
        file: the path of the file
        position: position in the log, or None when the file as a whole is meant
        hint: how to go on
    """

    def __init__(self, text: str, file: str, position: int | None, hint: str) -> None:
        super().__init__(f"{text} {hint}")
        self.file = file
        self.position = position
        self.hint = hint
