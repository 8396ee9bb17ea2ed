"""From the paths that an operator names to the files to load: patterns, folders, files. Nothing is left out without a word."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from config.errors import DomainError
from ingestion import s3
from ingestion.formats.batches import UnreadableFile
from ingestion.s3 import S3Object

FILES_MAX = 100_000

Place = Path | S3Object


@dataclass(frozen=True)
class Skipped:
    """A path in a folder that is not loaded, and why, in words. `refused`: it should have been."""

    path: Path | str
    why: str
    refused: bool = False


@dataclass
class Discovered:
    """`files` in the order in which they are loaded, each once; `skipped`: what else the folders hold."""

    files: list[Place] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def discover(given: Iterable[str]) -> Discovered:
    """Files as named, patterns in the order of their names, folders with all that is in them, sorted by path; `s3://` alike.

    A pattern that matches nothing stays as it is, to be refused by its name. Raises `UnreadableFile` for more than FILES_MAX,
    and for `s3://` what `ingestion.s3.listed` raises.
    """
    found = Discovered()
    files: dict[Place, None] = {}
    for text in given:
        if s3.is_s3(text):
            objects, left_out = s3.listed(text)
            files.update(dict.fromkeys(objects))
            found.skipped += [Skipped(url, why) for url, why in left_out]
            _bound(files, text)
            continue
        paths = [Path(text)]
        if glob.has_magic(text) and not paths[0].exists():
            paths = sorted(Path(match) for match in glob.glob(text, recursive=True)) or paths  # noqa: PTH207 - absolute
        for path in paths:
            inside = _inside(path, found.skipped) if path.is_dir() else [path]
            files.update(dict.fromkeys(inside))
            _bound(files, text)
    found.files = list(files)
    found.skipped = list({skipped.path: skipped for skipped in found.skipped}.values())
    return found


def _bound(files: dict[Place, None], text: str) -> None:
    if len(files) > FILES_MAX:
        raise UnreadableFile(f"{text} holds more than {FILES_MAX:,} files. Load its folders one by one.")


@contextmanager
def local_file(
    place: Place,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Path]:
    """A discovered file where it can be read: as it lies there, or as a copy for so long. Its `origin` is `origin_of(place)`.

    Raises what `ingestion.s3.downloaded` raises.
    """
    if isinstance(place, Path):
        yield place
        return
    with s3.downloaded(place, on_progress=on_progress, should_stop=should_stop) as path, speaking_of(place, path):
        yield path


@contextmanager
def speaking_of(place: Place | str, path: Path) -> Iterator[None]:
    """What is refused inside says where the file came from, not where its copy is."""
    try:
        yield
    except DomainError as exc:
        exc.message = exc.message.replace(str(path), str(place))
        exc.args = (exc.message,)
        raise


def place_of(text: str) -> Place:
    """One file by its path or URL. Raises what `ingestion.s3.located` raises."""
    return s3.located(text) if s3.is_s3(text) else Path(text)


def origin_of(place: Place) -> str:
    """The URL of what is not a local file, else ""."""
    return "" if isinstance(place, Path) else str(place)


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
    skipped += sorted(missed, key=lambda one: str(one.path))
    if not files and len(skipped) == noted:
        skipped.append(Skipped(folder, "is an empty folder", refused=True))
    return sorted(files)
