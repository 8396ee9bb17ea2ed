"""Mappings that are saved from a dry run, listed, shown, used again and refused where they do not fit."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from ingestion.models import DeadLetter, IngestionJob, SavedMapping
from tests.ingestion.files import written
from tests.ingestion.stored import found, mark
from tests.ingestion.test_ingest_command import ingest

pytestmark = pytest.mark.usefixtures("stores")


def mappings(*arguments: str) -> str:
    out = StringIO()
    call_command("mappings", *arguments, stdout=out)
    return out.getvalue()


def test_a_dry_run_saves_a_mapping_that_later_files_of_its_source_use(tmp_path: Path) -> None:
    name, source, person = mark(), mark(), mark()
    first = written(tmp_path, "a.csv", "Reach,Who,name\na@b.de,x,Ann Testname\n")
    code, out, _ = ingest(first, "--dry-run", "--save-mapping", name, "--source", source)
    assert code == 0
    assert f"The mapping is saved as '{name}' and used for the files of '{source}'." in out
    edited = json.loads(mappings("--show", name))
    assert edited["columns"] == {"Reach": "email", "Who": None, "name": "name"}
    edited["columns"] = {"Who": "name", "name": None, "Reach": "email"}
    file = written(tmp_path, "edited.json", json.dumps(edited))
    assert (
        "is replaced as" in ingest(first, "--dry-run", "--mapping", file, "--save-mapping", name, "--source", source)[1]
    )
    later = written(tmp_path, "b.csv", f"Reach,Who,name\nc@d.de,{person},Bo Testname\n")
    assert ingest(later, "--source", source)[0] == 0
    record = found("name", person)[0]
    assert (record["email"], record["metadata"]) == ("c@d.de", '{"name":"Bo Testname"}')


def test_a_mapping_is_asked_for_by_name(tmp_path: Path) -> None:
    name, person = mark(), mark()
    path = written(tmp_path, "a.csv", f"name,other\nAnn,{person}\n")
    file = written(tmp_path, "m.json", '{"columns": {"other": "name"}}')
    ingest(path, "--dry-run", "--mapping", file, "--save-mapping", name)
    code, out, _ = ingest(path, "--dry-run", "--mapping", name, "--json")
    assert (code, json.loads(out)[0]["mapping_name"]) == (0, name)
    assert ingest(path, "--mapping", name)[0] == 0
    assert found("name", person)[0]["metadata"] == '{"name":"Ann"}'


def test_a_mapping_that_does_not_fit_is_refused_with_the_missing_columns(tmp_path: Path) -> None:
    source = mark()
    ingest(written(tmp_path, "a.csv", "id,name\n1,Ann\n"), "--dry-run", "--save-mapping", source, "--source", source)
    before = IngestionJob.objects.count()
    code, out, err = ingest(written(tmp_path, "b.csv", "id,nome\n1,Ann\n"), "--source", source, "--json")
    assert code == 2
    assert json.loads(out)[0]["error"]["code"] == "MAPPING_DOES_NOT_FIT"
    assert "does not have: 'name'. It has: 'id', 'nome'." in err
    assert IngestionJob.objects.count() == before


def test_a_source_has_one_mapping_the_last(tmp_path: Path) -> None:
    source, first, second = mark(), mark(), mark()
    path = written(tmp_path, "a.csv", "id,name\n1,Ann\n")
    for name in (first, second):
        ingest(path, "--dry-run", "--save-mapping", name, "--source", source)
    assert SavedMapping.objects.get(source=source).name == second
    assert SavedMapping.objects.get(name=first).source == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "UNKNOWN_MAPPING: The mapping .* cannot be read"),
        ("{", "INVALID_MAPPING: The mapping .* is not JSON"),
        ("[" * 200_000, "INVALID_MAPPING: The mapping .* is not JSON"),
        ("[]", "INVALID_MAPPING: A mapping is an object"),
        (" " * 1_100_000, "INVALID_MAPPING: The mapping .* is larger than"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "m.json" if content is None else written(tmp_path, "m.json", content)
    with pytest.raises(CommandError, match=message) as caught:
        ingest(written(tmp_path, "a.csv", "id,name\n1,Ann\n"), "--mapping", file)
    assert caught.value.returncode == 2


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    name = mark()
    path = written(tmp_path, "a.csv", "id,name\n1,Ann\n")
    ingest(path, "--dry-run", "--save-mapping", name)
    with pytest.raises(CommandError, match=r"UNKNOWN_MAPPING: There is no mapping 'no-such'. Saved are: "):
        ingest(path, "--mapping", "no-such")
    with pytest.raises(CommandError, match="There is no mapping 'no-such'"):
        mappings("--show", "no-such")


@pytest.mark.parametrize("name", ["a/b", "a.json", " ", "x" * 101, "a\nb"])
def test_a_name_that_could_not_be_asked_for_is_refused(tmp_path: Path, name: str) -> None:
    code, _, err = ingest(written(tmp_path, "a.csv", "id,name\n1,Ann\n"), "--dry-run", "--save-mapping", name)
    assert code == 2
    assert err.startswith("INVALID_MAPPING: ")


def test_a_mapping_is_saved_from_a_dry_run_of_one_file(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,name\n1,Ann\n")
    with pytest.raises(CommandError, match="--save-mapping goes with --dry-run"):
        ingest(path, "--save-mapping", "x")
    with pytest.raises(CommandError, match="takes the mapping of one file"):
        ingest(path, written(tmp_path, "b.csv", "id\n1\n"), "--dry-run", "--save-mapping", "x")


def test_a_job_that_is_taken_up_keeps_its_mapping_and_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", f"name,other\nAnn {mark()},x\n")
    file = written(tmp_path, "m.json", '{"columns": {"other": "name"}}')
    job = json.loads(ingest(path, "--json")[1])[0]["job"]
    IngestionJob.objects.filter(pk=job).update(state="stopped")
    code, _, err = ingest(path, "--mapping", file, "--json")
    assert (code, err) == (
        0,
        f"Job {job} had begun with another mapping and was ended with that one, not with '{file}'.\n",
    )
    assert ingest(path, "--mapping", file, "--again", "--json")[2] == ""


def test_mappings_are_listed_and_forgotten(tmp_path: Path) -> None:
    name, source = mark(), mark()
    ingest(written(tmp_path, "a.csv", "id,name\n1,Ann\n"), "--dry-run", "--save-mapping", name, "--source", source)
    listed = next(line for line in mappings().splitlines() if name in line)
    assert source in listed
    assert "user_id" in listed
    assert mappings("--delete", name) == f"The mapping '{name}' is forgotten.\n"
    assert not SavedMapping.objects.filter(name=name).exists()


def test_a_dry_run_shows_long_names_whole(tmp_path: Path) -> None:
    name = "contact.information." + "x" * 60
    _, out, _ = ingest(written(tmp_path, "a.csv", f"name,{name}\nAnn,1\n"), "--dry-run")
    cells = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    assert name in "".join(cells)


def test_a_dry_run_shows_lists_and_where_their_members_stay(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", '{"name": "Ann", "[red]": "x", "t": [{"phone": "1", "party": "T"}]}\n')
    code, out, _ = ingest(path, "--dry-run")
    assert code == 0
    for words in ("t[-1].phone", "list member", "in its list", "metadata (list)", "[red]"):
        assert words in out
    assert not DeadLetter.objects.filter(job__source_path=str(path)).exists()
