"""An XML parser that fetches nothing, expands nothing and keeps no more than one tag: for files that strangers wrote."""

import codecs
import re
from typing import NoReturn
from xml.parsers import expat

from ingestion.formats import limits
from ingestion.formats.batches import RefusedFile, UnknownFormat

_DECLARED = re.compile(rb"""\s*<\?xml\s[^>]{0,200}?encoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]{0,40})["']""")
# Codecs that Python counts among those of text and that no document is written in.
_NO_DOCUMENT = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")


class UnsafeXml(RefusedFile):
    """A document that declares entities or brings a grammar of its own."""

    code = "UNSAFE_XML"


def guarded_parser() -> expat.XMLParserType:
    """A parser of UTF-8 bytes, whatever the document declares.

    A `<!DOCTYPE>` that only names a grammar is passed over; one with declarations in it raises `UnsafeXml` before the first of
    them is read. No external entity, grammar or XInclude is ever fetched, and no attribute is added that is not written.
    """
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    parser.buffer_size = 64 * 1024
    parser.specified_attributes = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.StartDoctypeDeclHandler = _doctype
    parser.EntityDeclHandler = _entity
    return parser


def _doctype(name: str, system_id: str | None, public_id: str | None, has_internal_subset: int) -> None:
    if has_internal_subset:
        _refuse()


def _entity(*declared: object) -> NoReturn:
    _refuse()


def _refuse() -> NoReturn:
    raise UnsafeXml(
        "The document carries declarations in its <!DOCTYPE […]>: entities are not expanded. Export it without a DOCTYPE."
    )


def local_name(name: str) -> str:
    """A tag's or attribute's name without its namespace's prefix."""
    return name[name.rfind(":") + 1 :]


def stuck(parser: expat.XMLParserType, fed: int) -> bool:
    """Whether the parser, given `fed` bytes so far, sits in a single tag or comment that is longer than a row may be."""
    return fed - max(0, parser.CurrentByteIndex) > limits.ROW_BYTES_MAX


def declared_encoding(head: bytes) -> str | None:
    """The codec that an XML declaration names, None when it names none or one that the bytes of the declaration rule out.

    Raises `UnknownFormat` for a name that is no encoding of text.
    """
    found = _DECLARED.match(head)
    if found is None:
        return None
    name = found[1].decode("ascii")
    try:
        codec = codecs.lookup(name)
    except LookupError:
        codec = None
    if codec is None or codec.name in _NO_DOCUMENT or not getattr(codec, "_is_text_encoding", False):
        raise UnknownFormat(f"The document declares the encoding '{name}', which is not known. Convert it to UTF-8.")
    # A declaration that can be read byte by byte is not written in two or four bytes a character.
    return None if codec.name.startswith(("utf-16", "utf-32")) else codec.name
