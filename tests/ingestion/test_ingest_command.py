"""`manage.py ingest` as an operator runs it: exit codes, messages, hostile files, kill -9."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from ingestion.generator import KNOWN_ID, write
from ingestion.models import DeadLetter, IngestionJob
from tests.ingestion.files import written
from tests.ingestion.stored import count, counts, found, mark

pytestmark = pytest.mark.usefixtures("stores")
ROOT = Path(__file__).resolve().parent.parent.parent


def ingest(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    out, err = StringIO(), StringIO()
    try:
        call_command("ingest", *map(str, arguments), stdout=out, stderr=err)
    except SystemExit as exc:
        return int(str(exc.code)), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def process(*arguments: str | Path, **environment: str) -> "subprocess.Popen[bytes]":
    url = urlsplit(os.environ["DATABASE_URL"])
    database = urlunsplit(url._replace(path=f"/{settings.DATABASES['default']['NAME']}"))
    return subprocess.Popen(
        [sys.executable, "manage.py", "ingest", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_done_is_0_and_shows_the_counts(tmp_path: Path) -> None:
    code, out, err = ingest(written(tmp_path, "people.csv", f"id,name\n1,{mark()}\n"))
    assert (code, err) == (0, "")
    assert "people.csv: done" in out
    assert "read" in out
    assert "duplicates" in out


def test_json_gives_one_answer_a_file(tmp_path: Path) -> None:
    name = mark()
    first = written(tmp_path, "a.csv", f"id,name\n1,{name}\n")
    second = written(tmp_path, "b.csv", f"id,name\n1,{name}\n2,{name}\n")
    code, out, _ = ingest(tmp_path / "*.csv", "--json")
    answers: list[dict[str, Any]] = json.loads(out)
    assert code == 0
    shown = ("path", "read", "loaded", "duplicates", "rejected")
    assert [tuple(answer[name] for name in shown) for answer in answers] == [
        (str(first), 1, 1, 0, 0),
        (str(second), 2, 1, 1, 0),
    ]


def test_a_folder_is_loaded_and_says_what_it_left_out(tmp_path: Path) -> None:
    name = mark()
    (tmp_path / "sub").mkdir()
    first = written(tmp_path, "a.csv", f"id,name\n1,{name}\n")
    second = written(tmp_path / "sub", "b.jsonl", f'{{"id": 2, "name": "{name}"}}\n')
    hidden = written(tmp_path, ".c.csv", f"id,name\n3,{name}\n")
    picture = written(tmp_path, "d.pdf", b"%PDF-1.7")
    code, out, err = ingest(tmp_path, "--json")
    assert code == 2
    assert {answer["path"]: answer["state"] for answer in json.loads(out)} == {
        str(hidden): "skipped",
        str(first): "done",
        str(picture): "refused",
        str(second): "done",
    }
    assert f"Skipped: {hidden} is hidden." in err
    assert count("hasToken(words, {name:String})", name=name) == 2


def test_an_empty_folder_exits_2(tmp_path: Path) -> None:
    code, _, err = ingest(tmp_path)
    assert (code, err) == (2, f"Refused: {tmp_path} is an empty folder.\n")


def test_a_file_that_was_loaded_before_is_skipped_whatever_its_name(tmp_path: Path) -> None:
    text = f"id,name\n1,{mark()}\n"
    job = json.loads(ingest(written(tmp_path, "a.csv", text), "--json")[1])[0]["job"]
    before = IngestionJob.objects.count()
    code, out, _ = ingest(written(tmp_path, "b.csv", text), "--json")
    answer = json.loads(out)[0]
    assert (code, answer["state"], answer["job"], answer["read"]) == (0, "skipped", job, 0)
    assert IngestionJob.objects.count() == before
    assert f"as a.csv (done, job {job}). --again loads it all the same." in ingest(tmp_path / "b.csv")[1]


def test_again_reads_a_known_file_and_loads_nothing_twice(tmp_path: Path) -> None:
    name = mark()
    path = written(tmp_path, "a.csv", f"id,name\n1,{name}\n2,{name}\n")
    answers = [json.loads(ingest(path, "--json", "--again")[1])[0] for _ in range(3)]
    assert [(answer["read"], answer["loaded"], answer["duplicates"]) for answer in answers] == [
        (2, 2, 0),
        (2, 0, 2),
        (2, 0, 2),
    ]
    assert count("hasToken(words, {name:String})", name=name) == 2


def test_a_file_whose_job_stopped_is_not_known(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", f"id,name\n1,{mark()}\n")
    job = json.loads(ingest(path, "--json")[1])[0]["job"]
    IngestionJob.objects.filter(pk=job).update(state="stopped")
    assert [(answer["job"], answer["state"]) for answer in json.loads(ingest(path, "--json")[1])] == [(job, "done")]


def test_rejects_over_the_threshold_exit_1(tmp_path: Path) -> None:
    code, out, _ = ingest(written(tmp_path, "a.csv", f"id,name\n1,{mark()}\n2\n"))
    assert code == 1
    assert "needs review" in out


def test_a_dry_run_shows_the_mapping_and_loads_nothing(tmp_path: Path) -> None:
    name = mark()
    code, out, _ = ingest(written(tmp_path, "a.csv", f'id,name,shoe size\n1,"Doe, {name}",43\n'), "--dry-run")
    assert code == 0
    for words in ("user_id", "alias", "100%", "shoe size", "metadata", "43", "Nothing was loaded"):
        assert words in out
    assert count("hasToken(words, {name:String})", name=name) == 0


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("none.csv", None, "UNREADABLE_FILE"),
        ("empty.csv", b"", "EMPTY_FILE"),
        ("blank.csv", b"\n\n \n", "UNKNOWN_FORMAT"),
        ("header.csv", b"id,name\n", "EMPTY_FILE"),
        ("array.json", b"[]", "EMPTY_FILE"),
        ("nothing.csv", b"height,width\n1,2\n", "NOTHING_MAPPABLE"),
        ("cut.csv.gz", gzip.compress(b"id,name\n1,Ann\n" * 999, mtime=0)[:-20], "BROKEN_ARCHIVE"),
        ("depth.json", b"[" * 100_000, "NOTHING_MAPPABLE"),
        ("page.html", b"<!doctype html><p>hi", "UNKNOWN_FORMAT"),
        ("dump.sql", b"DROP TABLE records;", "EMPTY_FILE"),
    ],
)
def test_what_cannot_be_loaded_is_refused(tmp_path: Path, name: str, content: bytes | None, error: str) -> None:
    path = tmp_path / name if content is None else written(tmp_path, name, content)
    before = IngestionJob.objects.count()
    code, out, err = ingest(path, "--json")
    assert code == 2
    assert json.loads(out)[0]["error"]["code"] == error
    assert err.startswith(f"{error}: ")
    assert IngestionJob.objects.count() == before


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "secret.csv", "id,name\n1,Ann\n")
    path.chmod(0)
    if os.geteuid() == 0:  # root may read everything: look as somebody who may not
        program = (
            "import os, sys; from pathlib import Path\n"
            "from ingestion.formats.compression import open_binary; os.seteuid(65534)\n"
            "try: open_binary(Path(sys.argv[1]))\nexcept Exception as exc: print(exc.code, exc)"
        )
        tmp_path.chmod(0o711)
        shown = subprocess.run(
            [sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        ).stdout
    else:
        shown = ingest(path)[2]
    assert "UNREADABLE_FILE" in shown


def test_a_refused_file_does_not_keep_the_others_back(tmp_path: Path) -> None:
    name = mark()
    code, out, _ = ingest(tmp_path / "none.csv", written(tmp_path, "a.csv", f"id,name\n1,{name}\n"), "--json")
    assert code == 2
    assert [answer["state"] for answer in json.loads(out)] == ["refused", "done"]
    assert count("hasToken(words, {name:String})", name=name) == 1


def test_chunk_rows_have_a_limit(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="between 1 and 1,000,000"):
        call_command("ingest", str(tmp_path / "a.csv"), "--chunk-rows", "0")


HOSTILE = {
    "unclosed quote": ('id,name\n1,"{m}\n2,{m}\n', 1, {"BAD_QUOTE", "UNCLOSED_QUOTE"}),
    "ragged": ("id,name\n1,{m}\n2\n3,{m},x\n", 1, {"RAGGED_ROW"}),
    "nul": ("id,name\n1,{m} \x00\n", 1, set()),
    "bare cr": ("id,name\r1,{m}\r", 1, set()),
    "repeated headers": ("id,name,name\n1,{m},x\n", 1, set()),
    "nan": ('{{"id": NaN, "name": "{m}"}}\n{{"id": 1, "name": "{m}"}}\n', 1, {"INVALID_JSON"}),
    "half a last line": ('{{"id": 1, "name": "{m}"}}\n{{"id": 2, "na', 1, {"INVALID_JSON"}),
    "duplicate keys": ('{{"id": 1, "id": 2}}\n{{"id": 1, "name": "{m}"}}\n', 1, {"DUPLICATE_KEY"}),
    "surrogate": ('{{"id": 1, "name": "{m}"}}\n{{"id": "\\ud83d"}}\n', 1, {"INVALID_TEXT"}),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_hostile_input_is_loaded_or_told(tmp_path: Path, case: str, encoding: str) -> None:
    text, good, reasons = HOSTILE[case]
    name = mark()
    path = written(tmp_path, "input", text.format(m=name).encode(encoding))
    code, out, _ = ingest(path, "--json")
    answer = json.loads(out)[0]
    assert code == (1 if reasons else 0)
    assert answer["loaded"] == good == count("hasToken(words, {name:String})", name=name)
    assert answer["read"] == answer["loaded"] + answer["duplicates"] + answer["rejected"]
    assert set(DeadLetter.objects.filter(job_id=answer["job"]).values_list("reason", flat=True)) <= reasons
    assert bool(answer["rejected"]) == bool(reasons)


def test_cp1252_is_read_as_it_was_meant(tmp_path: Path) -> None:
    name = mark()
    ingest(written(tmp_path, "a.csv", f"id,name\n1,Zoë Müller {name}\n".encode("cp1252")))
    assert count("hasAllTokens(words, {words:Array(String)})", words=["zoë", "müller", name]) == 1


def test_kill_minus_9_and_again_gives_the_table_of_one_run(tmp_path: Path) -> None:
    path = tmp_path / "generated.csv"
    seed = int(mark()[1:8], 16)
    write(path, rows=150_000, seed=seed)
    for rounds in range(3):
        running = process(path, "--chunk-rows", "1")
        wait_for_rows(path, rounds, running)
        running.send_signal(signal.SIGKILL)
        running.wait(timeout=30)
    code, out, _ = ingest(path, "--json")
    answer = json.loads(out)[0]
    unique = len(set(path.read_text().splitlines()[1:]))
    job = IngestionJob.objects.get(sha256=IngestionJob.objects.get(pk=answer["job"]).sha256)
    read, loaded, duplicate, rejected = counts(job)
    assert (code, read) == (0, 150_000)
    assert loaded == count("job_id = {job:UUID}", job=str(job.pk))
    assert loaded == count("id IN (SELECT id FROM records WHERE job_id = {job:UUID})", job=str(job.pk))
    assert loaded + duplicate + rejected == 150_000
    assert loaded + len(set(broken_lines(path))) == unique
    assert rejected == DeadLetter.objects.filter(job=job).count() == len(broken_lines(path))


def wait_for_rows(path: Path | str, chunks: int, running: "subprocess.Popen[bytes]") -> None:
    """Until the job has done more than `chunks` chunks, or its process has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running.poll() is None:
        if IngestionJob.objects.filter(source_path=str(path), chunks_done__gt=chunks).exists():
            return
        time.sleep(0.02)


def broken_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines()[1:] if line.count(",") < 13]


def test_sigterm_stops_between_chunks_with_exit_3_and_the_next_run_completes(tmp_path: Path) -> None:
    path = tmp_path / "generated.csv"
    write(path, rows=150_000, seed=int(mark()[1:8], 16), dirt=0)
    running = process(path, "--chunk-rows", "1")
    wait_for_rows(path, 0, running)
    running.terminate()
    assert running.wait(timeout=60) == 3
    job = IngestionJob.objects.get(source_path=str(path))
    assert job.state == "stopped"
    assert 0 < job.rows_read < 150_000
    code, out, _ = ingest(path, "--json")
    answer = json.loads(out)[0]
    assert (code, answer["job"], answer["read"], answer["rejected"]) == (0, str(job.pk), 150_000, 0)


def test_the_known_record_is_found_by_its_own_id(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", rows=1000, dirt=0, seed=int(mark()[1:8], 16))
    job = json.loads(ingest(tmp_path / "a.csv", "--json")[1])[0]["job"]
    assert count("user_id = {id:String} AND job_id = {job:UUID}", id=KNOWN_ID, job=job) == 1
    assert count("hasToken(words, 'acme') AND job_id = {job:UUID}", job=job) >= 20


def test_an_office_is_found_by_its_city_with_its_zip_as_written(tmp_path: Path) -> None:
    city = mark()
    offices = [
        {"key": "A1", "id": f"A1-{city}", "address": "29 Mill St.", "city": city, "state": "MA", "zip": "02458",
         "latitude": 42.3548250, "fax": "617-555-0100", "phone": "617-555-0199"},
        {"key": "B2", "id": "B2-x", "address": "1 Elm Ave.", "city": "Elsewhere", "state": "NJ", "zip": "07860",
         "latitude": 41, "phone": "973-555-0111"},
    ]  # fmt: skip
    text = json.dumps(offices, indent=1).replace("42.354825", "42.3548250")
    assert ingest(written(tmp_path, "offices.json", text))[0] == 0
    office = found("city", city)[0]
    assert (office["user_id"], office["phone"], office["address"]) == (f"A1-{city}", "+16175550199", "29 Mill St.")
    assert office["metadata"] == '{"fax":"617-555-0100","key":"A1","latitude":"42.3548250","state":"MA","zip":"02458"}'


def test_a_person_is_loaded_with_the_contact_data_of_the_current_term(tmp_path: Path) -> None:
    name = mark().capitalize()
    person = {
        "id": {"register": f"T-{name}", "old": 17},
        "name": {"first": "Ann", "last": name, "official_full": f"Ann {name}"},
        "bio": {"birthday": "1958-10-13"},
        "terms": [
            {"start": "2001-01-03", "state": "OR", "phone": "202-555-0100", "address": "1 Old St"},
            {"start": "2007-01-03", "state": "WA", "phone": "202-555-0143", "address": "2 New St"},
        ],
    }
    assert ingest(written(tmp_path, "people.jsonl", json.dumps(person) + "\n"))[0] == 0
    record = found("name", f"Ann {name}")[0]
    assert (record["user_id"], record["phone"], record["address"]) == (f"T-{name}", "+12025550143", "2 New St")
    kept = json.loads(record["metadata"])
    assert kept.keys() == {"id.old", "name.first", "name.last", "bio.birthday", "terms"}
    assert (kept["bio.birthday"], kept["terms"]) == ("1958-10-13", person["terms"])


def test_the_records_of_a_wrapped_list_are_loaded(tmp_path: Path) -> None:
    city = mark()
    document = {
        "status": "ok",
        "data": [{"id": number, "name": "Ann", "city": city} for number in range(3)],
        "next": None,
    }
    path = written(tmp_path, "page.json", json.dumps(document))
    assert "The records are the list 'data'; what is around it is not loaded." in ingest(path, "--dry-run")[1]
    code, out, _ = ingest(path, "--json")
    answer = json.loads(out)[0]
    assert (code, answer["read"], answer["loaded"]) == (0, 3, 3)
    assert [record["user_id"] for record in found("city", city)] == ["0", "1", "2"]


def test_an_artist_is_found_by_either_name(tmp_path: Path) -> None:
    last = mark().capitalize()
    text = f'\ufeffid,name,dates,placeOfBirth\r\n10,"{last}, Magdalena",born 1930,Polska\r\n11,"Doe, Ann",,"Bath, England"\r\n'
    assert ingest(written(tmp_path, "artists.csv", text))[0] == 0
    assert count("hasAllTokens(words, {words:Array(String)})", words=[last.lower()]) == 1
    artist = found("name", f"Magdalena {last}")[0]
    assert artist["metadata"] == '{"dates":"born 1930","placeOfBirth":"Polska"}'
