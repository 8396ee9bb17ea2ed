"""From paths to files: what is found, in which order, and what is said of the rest."""

from pathlib import Path

import pytest

from ingestion import discovery
from ingestion.discovery import discover
from ingestion.formats.batches import UnreadableFile
from tests.ingestion.files import written


def tree(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        written(folder, name, "x")


def test_a_folder_gives_its_files_and_those_of_its_folders_sorted(tmp_path: Path) -> None:
    tree(tmp_path, "b.csv", "a/z.csv", "a/c.csv", "c.csv")
    assert discover([str(tmp_path)]).files == [tmp_path / name for name in ("a/c.csv", "a/z.csv", "b.csv", "c.csv")]


def test_each_file_is_loaded_once_in_the_order_of_the_arguments(tmp_path: Path) -> None:
    tree(tmp_path, "b.csv", "a.csv", "c.tsv")
    given = [str(tmp_path / "c.tsv"), str(tmp_path / "*.csv"), str(tmp_path), str(tmp_path / "a.csv")]
    assert [path.name for path in discover(given).files] == ["c.tsv", "a.csv", "b.csv"]


def test_a_pattern_reaches_into_folders(tmp_path: Path) -> None:
    tree(tmp_path, "a/b/c.csv", "a/d.csv", "a/e.json")
    assert [path.name for path in discover([str(tmp_path / "**/*.csv")]).files] == ["c.csv", "d.csv"]


def test_a_pattern_that_matches_nothing_stays_to_be_refused(tmp_path: Path) -> None:
    assert discover([str(tmp_path / "*.csv")]).files == [tmp_path / "*.csv"]


def test_a_name_with_brackets_is_a_name_when_there_is_such_a_file(tmp_path: Path) -> None:
    tree(tmp_path, "a[1].csv", "a1.csv")
    assert discover([str(tmp_path / "a[1].csv")]).files == [tmp_path / "a[1].csv"]


def test_what_a_folder_does_not_give_is_told(tmp_path: Path) -> None:
    tree(tmp_path, "a.csv", ".hidden.csv", ".git/b.csv", "sub/.c.csv")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken.csv").symlink_to(tmp_path / "gone.csv")
    found = discover([str(tmp_path)])
    assert found.files == [tmp_path / "a.csv", tmp_path / "broken.csv"]
    assert [
        (str(Path(skipped.path).relative_to(tmp_path)), skipped.why, skipped.refused) for skipped in found.skipped
    ] == [
        (".git", "is hidden", False),
        (".hidden.csv", "is hidden", False),
        ("loop", "is a link to a folder", False),
        ("sub/.c.csv", "is hidden", False),
    ]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    found = discover([str(tmp_path)])
    assert (found.files, [(skipped.why, skipped.refused) for skipped in found.skipped]) == (
        [],
        [("is an empty folder", True)],
    )


def test_files_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "a.csv", "b.csv", "c.csv")
    monkeypatch.setattr(discovery, "FILES_MAX", 2)
    with pytest.raises(UnreadableFile, match="more than 2 files"):
        discover([str(tmp_path)])
