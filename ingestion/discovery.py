"""From the paths that an operator names to the files to load: patterns, folders, files. Nothing is left out without a word."""

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ingestion.formats.batches import UnreadableFile

FILES_MAX = 100_000


@dataclass(frozen=True)
class Skipped:
    """A path in a folder that is not loaded, and why, in words. `refused`: it should have been."""

    path: Path
    why: str
    refused: bool = False


@dataclass
class Discovered:
    """`files` in the order in which they are loaded, each once; `skipped`: what else the folders hold."""

    files: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def discover(given: Iterable[str]) -> Discovered:
    """Files as named, patterns in the order of their names, folders with all that is in them, sorted by path.

    A pattern that matches nothing stays as it is, to be refused by its name. Raises `UnreadableFile` for more than FILES_MAX.
    """
    found = Discovered()
    files: dict[Path, None] = {}
    for text in given:
        paths = [Path(text)]
        if glob.has_magic(text) and not paths[0].exists():
            paths = sorted(Path(match) for match in glob.glob(text, recursive=True)) or paths  # noqa: PTH207 - absolute
        for path in paths:
            inside = _inside(path, found.skipped) if path.is_dir() else [path]
            files.update(dict.fromkeys(inside))
            if len(files) > FILES_MAX:
                raise UnreadableFile(f"{text} holds more than {FILES_MAX:,} files. Load its folders one by one.")
    found.files = list(files)
    found.skipped = list({skipped.path: skipped for skipped in found.skipped}.values())
    return found


def _inside(folder: Path, skipped: list[Skipped]) -> list[Path]:
    """The files of a folder and its folders, sorted. Links to folders are not followed: they may lead round in circles."""
    files: list[Path] = []
    missed: list[Skipped] = []
    noted = len(skipped)

    def refuse(error: OSError) -> None:
        missed.append(
            Skipped(Path(error.filename or folder), f"cannot be read: {error.strerror or error}", refused=True)
        )

    for place, folders, names in os.walk(folder, onerror=refuse):
        here = Path(place)
        for name in list(folders):
            path = here / name
            if name.startswith(".") or path.is_symlink():
                folders.remove(name)
                missed.append(Skipped(path, "is hidden" if name.startswith(".") else "is a link to a folder"))
        for name in names:
            path = here / name
            if name.startswith("."):
                missed.append(Skipped(path, "is hidden"))
            elif path.exists() and not path.is_file():
                missed.append(Skipped(path, "is no file"))
            else:
                files.append(path)
        if len(files) > FILES_MAX:
            break
    skipped += sorted(missed, key=lambda one: one.path)
    if not files and len(skipped) == noted:
        skipped.append(Skipped(folder, "is an empty folder", refused=True))
    return sorted(files)
