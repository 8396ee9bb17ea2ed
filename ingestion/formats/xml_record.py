"""Which element of an XML document is the record: found by what repeats, and by what the names below it say."""

import re
from collections import Counter
from dataclasses import dataclass, field
from xml.parsers import expat

from ingestion.formats.batches import UnknownFormat
from ingestion.formats.xml_guard import guarded_parser, local_name

SAMPLE_BYTES = 1024 * 1024
PATHS_MAX = 5_000
_DEPTH_MAX = 24
_BARE = re.compile(r"&(?!#?\w{1,40};)|<(?=[\s\d<=])")

_Path = tuple[str, ...]


@dataclass
class _Seen:
    """What a sample shows of one path: whether it has siblings of its name, and what is below it."""

    repeats: bool = False
    below: int = 0
    fields: set[str] = field(default_factory=set)
    has_children: bool = False
    has_values: bool = False


class _Survey:
    """Counts the paths of a sample, the deepest and the rarest left aside."""

    def __init__(self) -> None:
        self.paths: dict[_Path, _Seen] = {}
        self.leaves: set[_Path] = set()
        self._open: list[str] = []
        self._counts: list[Counter[str]] = [Counter()]
        self._below = [0]

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = local_name(name)
        self._open.append(name)
        siblings = self._counts[-1]
        siblings[name] += 1
        self._counts.append(Counter())
        self._below.append(len(attributes))
        seen = self._seen()
        if seen is not None:
            seen.repeats |= siblings[name] > 1
            path = tuple(self._open)
            for attribute in attributes:
                if not attribute.startswith("xmlns") and len(self.leaves) < PATHS_MAX:
                    self.leaves.add((*path, local_name(attribute)))
                    seen.has_children = seen.has_values = True
            parent = self.paths.get(path[:-1])
            if parent is not None:
                parent.has_children = True

    def end(self, name: str) -> None:
        below = self._below.pop()
        self._below[-1] += below + 1
        seen = self._seen()
        if seen is not None:
            seen.below += below
            if not self._counts[-1] and len(self.leaves) < PATHS_MAX:
                self.leaves.add(tuple(self._open))
                parent = self.paths.get(tuple(self._open[:-1]))
                if parent is not None:
                    parent.has_values = True
        self._counts.pop()
        self._open.pop()

    def _seen(self) -> _Seen | None:
        if len(self._open) > _DEPTH_MAX:
            return None
        path = tuple(self._open)
        if path not in self.paths and len(self.paths) >= PATHS_MAX:
            return None
        return self.paths.setdefault(path, _Seen())

    def close(self) -> None:
        """Ends what the sample left open."""
        while self._open:
            self.end(self._open[-1])


def find_record(sample: str, *, known_header: frozenset[str]) -> str:
    """The path of the element that is a record, as `root/people/person`; a sample may end anywhere.

    `known_header` are names, lower-case and of letters and digits alone, that say which elements hold a record's fields. Raises
    `UnknownFormat` when no element holds any, `UnsafeXml`.
    """
    survey = _Survey()
    parser = guarded_parser()
    parser.StartElementHandler = survey.start
    parser.EndElementHandler = survey.end
    # A bare ampersand or angle costs its own record alone when the file is read: it shall not end the sample.
    data = _BARE.sub("+", sample).encode()
    try:
        for at in range(0, len(data), 4096):
            parser.Parse(data[at : at + 4096], False)
    except expat.ExpatError:
        pass  # what came before the error is the sample: the reader will tell of it
    survey.close()
    _give_fields(survey)
    # An element with neither attributes nor elements in it is a value, not a record.
    choices = {path: seen for path, seen in survey.paths.items() if seen.has_children}
    if not choices:
        raise UnknownFormat("The document has no element with fields in it: there is nothing to load.")

    def worth(path: _Path) -> tuple[int, bool, int, bool, int]:
        seen = choices[path]
        known = len(seen.fields & known_header)
        return known, seen.repeats, seen.below if seen.repeats else 0, seen.has_values, -len(path)

    best: _Path = max(choices, key=worth)
    return "/".join(best)


def _give_fields(survey: _Survey) -> None:
    """A leaf's name is a field of what holds it, up to the first element that repeats: beyond that it is one of many."""
    for leaf in survey.leaves:
        name = re.sub(r"[\W_]+", "", leaf[-1].lower())
        for length in range(len(leaf) - 1, 0, -1):
            seen = survey.paths.get(leaf[:length])
            if seen is None:
                break
            seen.fields.add(name)
            if seen.repeats:
                break
