"""One JSON object to flat texts: nested objects by path, lists as JSON text. Pure."""

import itertools
import json
from typing import Any

from ingestion.formats import limits


class UnusableRow(Exception):
    """A value that cannot become a row: `reason` is a code, the text explains it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def flatten(value: Any) -> tuple[dict[str, str], dict[str, str]]:
    """One object as ({path: text}, {path: JSON text of a list}); paths joined with dots, empty and null values left out.

    Raises `UnusableRow` for what is not an object, is nested too deep, has too many fields or one that is too long.
    """
    if not isinstance(value, dict):
        raise UnusableRow("NOT_AN_OBJECT", "the value is not an object")
    texts: dict[str, str] = {}
    lists: dict[str, str] = {}
    stack: list[tuple[str, dict[str, Any], int]] = [("", value, 1)]
    longest = limits.FIELD_BYTES_MAX
    while stack:
        prefix, current, depth = stack.pop()
        if depth > limits.DEPTH_MAX:
            raise UnusableRow("TOO_DEEP", f"nested deeper than {limits.DEPTH_MAX} levels")
        for key, item in current.items():
            path = prefix + key
            if "\x00" in path:  # no store takes it in a name
                path = path.replace("\x00", " ")
            if path in texts or path in lists:  # {"a.b": 1, "a": {"b": 2}}
                path += "_2"
            if isinstance(item, str):
                if len(item) > longest:
                    raise UnusableRow("FIELD_TOO_LONG", f"a value is longer than {longest} characters")
                if item:
                    texts[path] = item
            elif isinstance(item, bool):
                texts[path] = "true" if item else "false"
            elif isinstance(item, dict):
                stack.append((path + ".", item, depth + 1))
            elif item:
                lists[path] = _list_text(item, depth)
    if len(texts) + len(lists) > limits.COLUMNS_MAX:
        raise UnusableRow("TOO_MANY_FIELDS", f"more than {limits.COLUMNS_MAX} fields")
    return texts, lists


def list_members(value: dict[str, Any]) -> dict[str, str]:
    """What a flattened object's lists offer as columns, {path: text}, LIST_MEMBERS_MAX at most.

    Of a list of objects the last one's texts and numbers (`terms[-1].phone`): lists grow at their end, so the last is the
    current one. Of a list of texts or numbers the first (`emails[0]`), which is the main one. Lists inside lists offer nothing.
    """
    members: dict[str, str] = {}
    stack: list[tuple[str, dict[str, Any], bool]] = [("", value, False)]
    while stack and len(members) < limits.LIST_MEMBERS_MAX:
        prefix, current, inside = stack.pop()
        for key, item in current.items():
            path = (prefix + key).replace("\x00", " ")
            if isinstance(item, dict):
                stack.append((path + ".", item, inside))
            elif isinstance(item, list):
                if inside or not item:
                    continue
                if all(isinstance(part, dict) for part in item):
                    stack.append((path + "[-1].", item[-1], True))
                elif item[0] and all(isinstance(part, str) for part in item):
                    members.setdefault(path + "[0]", item[0])
            elif inside and isinstance(item, str) and item:
                members.setdefault(path, item)
    return dict(itertools.islice(members.items(), limits.LIST_MEMBERS_MAX))


def _list_text(items: list[Any], depth: int) -> str:
    _check_depth(items, depth)
    plain = [_plain(part) for part in items]
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    if len(text) > limits.FIELD_BYTES_MAX:
        raise UnusableRow("FIELD_TOO_LONG", f"a list is longer than {limits.FIELD_BYTES_MAX} characters")
    return text


def _plain(item: Any) -> Any:
    """A list's member as it is kept: scalars as text, like every other value."""
    if isinstance(item, dict):
        return {key: _plain(part) for key, part in item.items() if part is not None}
    if isinstance(item, list):
        return [_plain(part) for part in item]
    if isinstance(item, bool):
        return "true" if item else "false"
    return item


def _check_depth(item: Any, depth: int) -> None:
    level = [item]
    while level:
        depth += 1
        if depth > limits.DEPTH_MAX:
            raise UnusableRow("TOO_DEEP", f"nested deeper than {limits.DEPTH_MAX} levels")
        level = [
            part
            for outer in level
            for part in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(part, dict | list)
        ]
