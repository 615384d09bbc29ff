"""Checks of published files: every field is there, no question twice, none missing."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from jacobi_forcing.errors import DataError
from jacobi_forcing.problems.published.published_set import Question


class Record(NamedTuple):
    """One record with its place; reading a field checks it."""

    where: str
    title: str  # of the set
    found: dict[str, Any]

    def text(self, name: str) -> str:
        """Give a text field."""
        return self._field(name, str, "a text")

    def texts(self, name: str) -> list[str]:
        """Give a field that is a list of texts."""
        texts = self._field(name, list, "a list of texts")
        if not all(isinstance(text, str) for text in texts):
            raise self.wrong(name, "a list of texts")
        return texts

    def values(self, name: str) -> list:
        """Give a field that is a list."""
        return self._field(name, list, "a list")

    def number(self, name: str) -> int:
        """Give a whole number."""
        return self._field(name, int, "a whole number")

    def wrong(self, name: str, needed: str) -> DataError:
        """Say that a field does not hold what is needed."""
        found = repr(self.found[name])
        found = found if len(found) <= 60 else f"{found[:60]}..."
        return DataError(f'{self.where}: "{name}" is {found}; {self.title} has {needed} there.')

    def _field(self, name: str, kind: type, needed: str) -> Any:
        if name not in self.found:
            names = ", ".join(map(str, self.found)) or "none"
            raise DataError(
                f'{self.where}: has no "{name}", as all records of {self.title} have; its fields '
                f"are {names}. Give the file as it was published."
            )
        value = self.found[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(name, needed)
        return value


def as_records(title: str, records: Iterable[tuple[str, Any]]) -> Iterator[Record]:
    """Wrap (place, record) pairs.

    Raises:
        DataError: One is not an object.
    """
    for where, found in records:
        if not isinstance(found, dict):
            raise DataError(f"{where}: is no object. Give {title} as it was published.")
        yield Record(where, title, found)


def complete(
    title: str, questions: Iterable[tuple[str, Question]], counts: tuple[int, ...]
) -> list[Question]:
    """Collect (place, question) pairs of a whole set.

    Args:
        title: Of the set.
        questions: With the places that they come from.
        counts: How many there may be, by the versions of the set.

    Raises:
        DataError: A question comes twice, or there are too few or too many.
    """
    places: dict[str, str] = {}
    collected = []
    for where, question in questions:
        first = places.setdefault(question.id, where)
        if first != where:
            raise DataError(
                f"{where}: {question.id} is at {first} too. Give {title} as it was published."
            )
        collected.append(question)
    if len(collected) not in counts:
        last = next(reversed(places.values()), "the file")
        raise DataError(
            f"{last}: the last of {len(collected)} questions of {title}, needed are "
            f"{' or '.join(map(str, counts))}. This is a part of it, or another split or version. "
            "Give the file as it was published."
        )
    return collected
