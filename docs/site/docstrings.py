"""How griffe, which reads the source for the API pages, learns this project's habits.

A field of a NamedTuple or dataclass is explained by the comment behind it, or under `Fields:` in
the docstring of its class, which elsewhere is called `Attributes:`.
"""

from typing import Any

from griffe import Attribute, Class, Docstring, Extension


class Habits(Extension):
    """Give attributes their comment as a docstring, and `Fields:` its usual name."""

    def on_attribute(self, *, attr: Attribute, **_: Any) -> None:
        """Take the comment at the end of a field's line."""
        if attr.docstring is None and attr.lineno and isinstance(attr.parent, Class):
            line = attr.lines_collection[attr.filepath][attr.lineno - 1]
            _, found, comment = line.partition("  # ")
            if found:
                text = comment[0].upper() + comment[1:].rstrip(".") + "."
                attr.docstring = Docstring(text, parent=attr)

    def on_class(self, *, cls: Class, **_: Any) -> None:
        """Rename the section."""
        if cls.docstring is not None:
            value = cls.docstring.value
            cls.docstring.value = value.replace("\nFields:\n", "\nAttributes:\n")
