"""What is done of a file that is not whole yet, line by line, safe against a kill at any moment.

A line is a checksum and a text. A process that dies while it writes leaves half a line at the end,
and a power failure may lose the last second's lines: both are cut off when the journal is opened
again, so that what is read is always a whole beginning of what was written.
"""

import os
import time
import zlib
from pathlib import Path

from jacobi_forcing.data.files import cannot_write

_SYNC_SECONDS = 1.0


class Journal:
    """An append-only list of texts without line breaks, on disk.

    Fields:
        lines: What was there when it was opened.

    Raises:
        DataError: The file cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = path.open("ab", buffering=0)  # what is written is the kernel's at once
            self.lines, end = self._read()
            self._file.truncate(end)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._synced = time.monotonic()

    def _read(self) -> tuple[list[str], int]:
        """Read the lines up to the first broken one; return its place in bytes, too."""
        lines, end = [], 0
        with self.path.open("rb") as file:
            for line in file:
                checksum, _, text = line.rstrip(b"\n").partition(b" ")
                if not line.endswith(b"\n") or checksum != _checksum(text):
                    break
                lines.append(text.decode())
                end += len(line)
        return lines, end

    def append(self, line: str) -> None:
        """Add a line: behind this a kill does not lose it, a second later nor does a power failure.

        Raises:
            DataError: The disk is full; half a line may be left, to be cut off by the next opening.
        """
        text = line.encode()
        rest = _checksum(text) + b" " + text + b"\n"
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            now = time.monotonic()
            if now - self._synced >= _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = now
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def remove(self) -> None:
        """Delete the file, once what it holds is elsewhere."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
