"""Which documents share a training sequence: first fit by length, in bounded memory."""

from collections.abc import Iterator

from jacobi_forcing.data.packed import Document, Packed

_MOST_WAITING = 256  # documents that are sorted together
_MOST_OPEN = 256  # sequences that have room left; with fewer, more of them stay half empty


class FirstFit:
    """Lays documents into the first open sequence that has room for them.

    Some hundred documents at a time are laid out, the longest first: the short ones find room
    where the long ones would not. A sequence is closed when nothing more fits into it, or when it
    is the oldest of too many.

    Args:
        max_length: Tokens that a sequence holds at most.
        most_documents: Documents that a sequence holds at most; 0 for any number.
        shortest: No document is shorter: a sequence with less room than this is full.
    """

    def __init__(self, max_length: int, most_documents: int, shortest: int):
        self.max_length = max_length
        self.most_documents = most_documents
        self.shortest = shortest
        self._waiting: list[Document] = []
        self._open: list[list[Document]] = []
        self._room: list[int] = []  # tokens, of each open sequence

    def add(self, document: Document) -> Iterator[Packed]:
        """Take in a document of at most `max_length` tokens; give the sequences that it closes."""
        if self.most_documents == 1:
            yield (document,)
            return
        self._waiting.append(document)
        if len(self._waiting) == _MOST_WAITING:
            yield from self._place()

    def finish(self) -> Iterator[Packed]:
        """Give what is left, in the order in which the sequences were opened."""
        yield from self._place()
        while self._open:
            yield self._close(0)

    def _place(self) -> Iterator[Packed]:
        for document in sorted(self._waiting, key=lambda d: -len(d.input_ids)):
            length = len(document.input_ids)
            at = next((i for i, room in enumerate(self._room) if room >= length), None)
            if at is None:
                at = len(self._open)
                self._open.append([])
                self._room.append(self.max_length)
            self._open[at].append(document)
            self._room[at] -= length
            if self._room[at] < self.shortest or len(self._open[at]) == self.most_documents:
                yield self._close(at)
            elif len(self._open) > _MOST_OPEN:
                yield self._close(0)
        self._waiting = []

    def _close(self, at: int) -> Packed:
        del self._room[at]
        return tuple(self._open.pop(at))
