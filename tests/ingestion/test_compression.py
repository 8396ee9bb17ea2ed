"""Compressed input: read as what is in it, or refused before anything is loaded."""

import bz2
import gzip
import hashlib
import io
import lzma
import struct
import tracemalloc
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.formats import limits
from ingestion.formats.batches import EmptyFile, UnknownFormat
from ingestion.formats.compression import (
    ArchiveTooLarge,
    BrokenArchive,
    RefusedArchive,
    compression_of,
    content_name,
    open_content,
)
from ingestion.formats.encoding import fingerprint
from tests.ingestion.files import detected, rows, written
from tests.ingestion.packing import PACKERS, zipped

CSV = "id,name\n" + "".join(f"{number},Zoë {number}\n" for number in range(3000))
JSONL = "".join(f'{{"id": "{number}", "name": "Zoë {number}"}}\n' for number in range(3000))
PEOPLE = [{"id": str(number), "name": f"Zoë {number}"} for number in range(3000)]


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize(("name", "text"), [("csv", CSV), ("jsonl", JSONL)])
def test_compressed_content_is_read_as_if_it_were_plain(tmp_path: Path, packer: str, name: str, text: str) -> None:
    path = written(tmp_path, "export.dat", PACKERS[packer](text.encode()))
    found = detected(path)
    assert (found.format, found.compression) == (name, packer)
    assert rows(path) == PEOPLE


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_compressed_content_keeps_its_encoding(tmp_path: Path, packer: str, encoding: str) -> None:
    text = "id,name\n" + "".join(f"{number},Zoë Müller-Lefèvre\n" for number in range(9))
    path = written(tmp_path, "a.csv", PACKERS[packer](text.encode(encoding)))
    assert rows(path)[8] == {"id": "8", "name": "Zoë Müller-Lefèvre"}


@pytest.mark.parametrize("packer", ["gzip", "zstd", "bzip2", "xz"])
def test_streams_one_after_another_are_read_whole(tmp_path: Path, packer: str) -> None:
    pack = PACKERS[packer]
    head, tail = CSV.encode()[:7000], CSV.encode()[7000:]
    assert rows(written(tmp_path, "a.csv", pack(head) + pack(b"") + pack(tail))) == PEOPLE


@pytest.mark.parametrize("packer", PACKERS)
def test_content_can_be_read_again_from_any_place(tmp_path: Path, packer: str) -> None:
    path = written(tmp_path, "a.csv", PACKERS[packer](CSV.encode()))
    with open_content(path) as content:
        content.seek(20_000)
        assert content.read(5) == CSV.encode()[20_000:20_005]
        content.seek(3)
        assert content.read(5) == CSV.encode()[3:8]
        assert content.tell() == 8
        assert content.read() == CSV.encode()[8:]


@pytest.mark.parametrize("packer", PACKERS)
def test_fingerprint_is_of_the_file_as_it_lies_there(tmp_path: Path, packer: str) -> None:
    packed = PACKERS[packer](CSV.encode())
    known = fingerprint(written(tmp_path, "a.csv", packed))
    assert (known.size_bytes, known.sha256) == (len(packed), hashlib.sha256(packed).hexdigest())
    assert known.content_bytes == len(CSV.encode())


NOISE = b"id,name\n" + b"".join(hashlib.sha256(bytes([n])).hexdigest().encode() + b",Ann\n" for n in range(256))


@pytest.mark.parametrize("packer", PACKERS)
def test_an_archive_that_is_cut_off_is_refused_before_anything_is_loaded(tmp_path: Path, packer: str) -> None:
    with pytest.raises(BrokenArchive, match="cut off or damaged"):
        fingerprint(written(tmp_path, "a.csv", PACKERS[packer](NOISE)[:-30]))


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zip"])  # zstd has a checksum only when its packer adds one
def test_an_archive_with_a_turned_bit_is_refused_before_anything_is_loaded(tmp_path: Path, packer: str) -> None:
    packed = bytearray(PACKERS[packer](NOISE))
    packed[len(packed) // 2] ^= 0x10
    with pytest.raises(BrokenArchive, match="cut off or damaged"):
        fingerprint(written(tmp_path, "a.csv", bytes(packed)))


@pytest.mark.parametrize("packer", ["gzip", "zstd", "bzip2", "xz"])
def test_what_follows_an_archive_is_not_passed_over(tmp_path: Path, packer: str) -> None:
    with pytest.raises(BrokenArchive):
        fingerprint(written(tmp_path, "a.csv", PACKERS[packer](CSV.encode()) + b"and something else"))


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz"])
def test_zeros_after_an_archive_are_padding(tmp_path: Path, packer: str) -> None:
    path = written(tmp_path, "a.csv", PACKERS[packer](CSV.encode()) + bytes(1024))
    assert fingerprint(path).content_bytes == len(CSV.encode())


@pytest.mark.parametrize("packer", PACKERS)
def test_an_archive_of_nothing_is_empty(tmp_path: Path, packer: str) -> None:
    with pytest.raises(EmptyFile):
        fingerprint(written(tmp_path, "a.csv.gz", PACKERS[packer](b"")))


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zip"])
def test_a_bomb_is_refused_by_its_ratio_in_little_memory(
    tmp_path: Path, packer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RATIO_FREE_BYTES", 1024 * 1024)
    path = written(tmp_path, "bomb", PACKERS[packer](bytes(40 * 1024 * 1024)))
    tracemalloc.start()
    with pytest.raises(ArchiveTooLarge, match="INGEST_UNPACKED_RATIO_MAX"):
        fingerprint(path, ratio_max=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * 1024 * 1024


def test_a_small_file_may_unpack_to_many_times_its_size(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv.gz", gzip.compress(b"id,name\n" + b"1,Ann\n" * 400_000))
    assert fingerprint(path, ratio_max=2).content_bytes == 2_400_008


def test_content_larger_than_the_limit_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ArchiveTooLarge, match=r"more than 100 bytes.*INGEST_UNPACKED_BYTES_MAX"):
        fingerprint(written(tmp_path, "a.csv.gz", gzip.compress(CSV.encode())), unpacked_max=100)


def test_an_xz_dictionary_larger_than_the_memory_limit_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2 * limits.UNPACKING_MEMORY_BYTES}]
    packed = lzma.compress(CSV.encode(), filters=filters)
    with pytest.raises(BrokenArchive, match="more than 128 MiB to unpack"):
        fingerprint(written(tmp_path, "a.csv.xz", packed))


def test_a_zstd_window_larger_than_the_memory_limit_is_refused(tmp_path: Path) -> None:
    # Magic, a frame header without a single segment, a window of 2**31 bytes, one raw block that is the last.
    packed = b"\x28\xb5\x2f\xfd" + bytes([0x00, (31 - 10) << 3]) + struct.pack("<I", (5 << 3) | 1)[:3] + b"id\n1\n"
    with pytest.raises(BrokenArchive, match="more than 128 MiB to unpack"):
        fingerprint(written(tmp_path, "a.csv.zst", packed))


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return out.getvalue()


def symlink() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("people.csv")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def encrypted() -> bytes:
    packed = bytearray(zip_of(("people.csv", b"id,name\n1,Ann\n")))
    packed[6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    return bytes(packed)


UNSAFE = {
    "two files": (zip_of(("a.csv", b"id\n1\n"), ("b.csv", b"id\n2\n")), r"2 files \('a.csv', 'b.csv'\)"),
    "no file": (zip_of(("folder/", b"")), "no file"),
    "parent": (zip_of(("../people.csv", b"id\n1\n")), "leads out of the archive"),
    "parent of windows": (zip_of(("a\\..\\..\\people.csv", b"id\n1\n")), "leads out of the archive"),
    "absolute": (zip_of(("/etc/people.csv", b"id\n1\n")), "leads out of the archive"),
    "drive": (zip_of(("C:/people.csv", b"id\n1\n")), "leads out of the archive"),
    "symlink": (zip_of((symlink(), b"/etc/passwd")), "symbolic link"),
    "encrypted": (encrypted(), "encrypted"),
    "bzip2 inside": (zip_of(("people.csv", b"id\n1\n"), method=zipfile.ZIP_BZIP2), "method 12"),
    "many files": (zip_of(*((f"{n:060}", b"") for n in range(12_000))), "thousands of files"),
}


@pytest.mark.parametrize("case", UNSAFE)
def test_a_zip_that_is_not_one_plain_file_is_refused(tmp_path: Path, case: str) -> None:
    packed, words = UNSAFE[case]
    with pytest.raises(RefusedArchive, match=words):
        fingerprint(written(tmp_path, "a.zip", packed))


def test_what_a_packer_adds_of_its_own_is_not_counted(tmp_path: Path) -> None:
    packed = zip_of(("data/", b""), ("data/people.csv", b"id,name\n1,Ann\n"), ("__MACOSX/data/._people.csv", b"\0\5"))
    path = written(tmp_path, "a.zip", packed)
    assert rows(path) == [{"id": "1", "name": "Ann"}]
    assert content_name(path) == "people.csv"


@pytest.mark.parametrize("outer", PACKERS)
@pytest.mark.parametrize("inner", PACKERS)
def test_an_archive_in_an_archive_is_refused(tmp_path: Path, outer: str, inner: str) -> None:
    with pytest.raises(RefusedArchive, match=f"{inner} archive inside"):
        detected(written(tmp_path, "a", PACKERS[outer](PACKERS[inner](CSV.encode()))))


def test_a_tar_in_an_archive_is_refused(tmp_path: Path) -> None:
    header = b"people.csv".ljust(257, b"\0") + b"ustar\x0000"
    with pytest.raises(RefusedArchive, match="tar archive inside"):
        detected(written(tmp_path, "a.tar.gz", gzip.compress(header.ljust(10240, b"\0"))))


def test_an_office_document_is_no_archive(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xlsx", zip_of(("[Content_Types].xml", b"<x/>"), ("xl/workbook.xml", b"<x/>")))
    assert compression_of(path) is None


def test_the_name_alone_makes_no_archive(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv.gz", "id,name\n1,Ann\n")
    assert (compression_of(path), rows(path)) == (None, [{"id": "1", "name": "Ann"}])


def test_text_that_begins_like_an_archive_is_text(tmp_path: Path) -> None:
    assert rows(written(tmp_path, "a.csv", "BZh9,name\n1,Ann\n")) == [{"BZh9": "1", "name": "Ann"}]


def test_the_name_inside_tells_tabs(tmp_path: Path) -> None:
    content = b"id\n1\n2\n"
    assert detected(written(tmp_path, "a.tsv.gz", gzip.compress(content))).format == "tsv"
    assert detected(written(tmp_path, "b.zip", zipped(content, name="b.tsv"))).format == "tsv"


def test_binary_content_is_refused_inside_as_outside(tmp_path: Path) -> None:
    with pytest.raises(UnknownFormat, match="PDF"):
        detected(written(tmp_path, "a.gz", gzip.compress(b"%PDF-1.7 abc")))


@given(
    st.binary(max_size=300),
    st.sampled_from([b"\x1f\x8b\x08", b"PK\x03\x04", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY"]),
)
def test_noise_behind_a_magic_is_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, magic: bytes
) -> None:
    path = written(tmp_path_factory.mktemp("noise"), "a", magic + noise)
    with suppress(BrokenArchive, RefusedArchive, EmptyFile):
        assert fingerprint(path).size_bytes == len(magic + noise)


@given(st.binary(max_size=2000), st.integers(1, 700), st.sampled_from(list(PACKERS)))
def test_reading_in_pieces_gives_the_content(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int, packer: str
) -> None:
    path = written(tmp_path_factory.mktemp("pieces"), "a", PACKERS[packer](content))
    with open_content(path) as opened:
        assert b"".join(iter(lambda: opened.read(size), b"")) == content


def test_bz2_of_many_blocks_is_read_whole(tmp_path: Path) -> None:
    content = b"id,name\n" + b"".join(b"%d,Ann\n" % number for number in range(200_000))
    with open_content(written(tmp_path, "a.bz2", bz2.compress(content, 1))) as opened:
        assert hashlib.sha256(opened.read()).digest() == hashlib.sha256(content).digest()
