"""Who made a version of an experiment, whence it came, and why.

Kept in the log beside the version. Called by the server for its callers' texts, and by the commands.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from decider.errors import InvalidArgument, Violation

MAX_AUTHOR = 100
MAX_NOTE = 500
MAX_SOURCE = 300
"""Characters. A file's name has 255 bytes at most."""

FROM_API, FROM_PAGE = "api", "page"
FROM_SERVER = "server"
"""What the server did by itself: a person may have any name, but does not come from there."""
_FILE = "file "

_NOT_IN_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, and those that change the direction of what stands around them: a text is shown as it is."""
_NOT_IN_A_NOTE = re.compile(_NOT_IN_A_LINE.pattern.replace(r"\x00-\x1f", r"\x00-\x08\x0b-\x1f"))


class Origin(NamedTuple):
    """author: as the caller said, which nobody proves; behind the name of a token or certificate, where there was one.
    source: "api", "page", "server", "file NAME" or "command NAME". note: a person's reason. Empty: not known."""

    author: str = ""
    source: str = ""
    note: str = ""

    def __str__(self) -> str:
        """In one line, for a log file.

        >>> str(Origin("ann", "api", "before\\nChristmas")), str(Origin())
        ('by ann, api: before Christmas', 'by nobody named, unknown source')
        """
        by = f"by {self.author or 'nobody named'}, {self.source or 'unknown source'}"
        return f"{by}: {' '.join(self.note.split())}" if self.note else by

    def proven_by(self, name: str) -> Origin:
        """With the name of the token or certificate in front of what the caller said.

        >>> Origin("ann").proven_by("ci").author, Origin().proven_by("ci").author
        ('ci (for ann)', 'ci')
        """
        return self._replace(author=f"{name} (for {self.author})" if self.author not in ("", name) else name)


UNKNOWN = Origin()


def check_origin(*, author: str, source: str, note: str) -> Origin:
    """Of texts that people sent. Line breaks of other systems become "\\n". Raises InvalidArgument.

    >>> check_origin(author=" ann ", source="api", note="one\\r\\ntwo")
    Origin(author='ann', source='api', note='one\\ntwo')
    """
    origin = Origin(author.strip(), source, note.replace("\r\n", "\n").strip())
    violations = [
        Violation(field, f"{problem}; it is shown as text")
        for field, text, longest, wrong in (
            ("author", origin.author, MAX_AUTHOR, _NOT_IN_A_LINE),
            ("source", origin.source, MAX_SOURCE, _NOT_IN_A_LINE),
            ("note", origin.note, MAX_NOTE, _NOT_IN_A_NOTE),
        )
        if (problem := _problem(text, longest, wrong))
    ]
    if violations:
        raise InvalidArgument(violations)
    return origin


def from_file(name: str) -> Origin:
    """Of a version that a file defines. Who edited it nobody knows: not even the file's owner need have done it.

    >>> from_file("shop.toml")
    Origin(author='', source='file shop.toml', note='')
    """
    return Origin(source=f"{_FILE}{_NOT_IN_A_LINE.sub('?', name)}"[:MAX_SOURCE])


def is_from_file(origin: Origin) -> bool:
    """Whether a file defines it.

    >>> is_from_file(from_file("shop.toml")), is_from_file(Origin(source="api"))
    (True, False)
    """
    return origin.source.startswith(_FILE)


def _problem(text: str, longest: int, wrong: re.Pattern[str]) -> str:
    if len(text) > longest:
        return f"has {len(text)} characters; at most {longest} are possible"
    return "has a control character, which is left out at best" if wrong.search(text) else ""
