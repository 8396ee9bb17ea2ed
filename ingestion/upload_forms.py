"""What operators type to load a file: the file or its address, and the mapping of its columns."""

from typing import Any

from django import forms
from django.conf import settings
from django.core.validators import ProhibitNullCharactersValidator
from unfold.widgets import UnfoldAdminSelectWidget

from config.admin_pages import OperationForm
from ingestion.fields import FIELDS, IDENTIFYING, NAME_PARTS
from ingestion.formats.detect import FORMATS
from ingestion.mapping_documents import MappingDocument
from ingestion.saved_mappings import NAME_MAX
from ingestion.upload_files import StoredUpload

# A form of more fields is refused by Django: what lies behind goes to the metadata, and the page says so.
COLUMNS_EDITED = 400
FORMAT_CHOICES = [("auto", "Find out"), *((name, name) for name in FORMATS)]
_LABELS = {
    "user_id": "id",
    "email": "e-mail",
    "created_date": "created date",
    "first_name": "first name",
    "middle_name": "middle name",
    "last_name": "last name",
}
FIELD_LABELS = {name: _LABELS.get(name, name) for name in (*FIELDS, *NAME_PARTS)}


class UploadForm(OperationForm):
    """A file, or where it lies, and the source it belongs to."""

    file = forms.FileField(required=False)
    place = forms.CharField(label="Or an address", required=False, max_length=2000)
    source = forms.CharField(
        required=False,
        max_length=100,
        help_text="The name under which its files belong together, such as “crm”. A mapping saved for it is used.",
    )
    wanted = forms.ChoiceField(label="Format", choices=FORMAT_CHOICES, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kinds, most = ", ".join(FORMATS), size_text(settings.INGEST_UPLOAD_BYTES_MAX)
        file, place = self.fields["file"], self.fields["place"]
        file.widget.attrs["data-bytes-max"] = str(settings.INGEST_UPLOAD_BYTES_MAX)
        file.help_text = f"{kinds}; plain or as gz, zst, bz2, xz, zip. At most {most}."
        folders = ", ".join(settings.INGEST_ADMIN_FOLDERS)
        below = f", or a path below {folders}." if folders else "."
        place.help_text = f"Instead of a file: s3://bucket/key{below}"

    def clean_source(self) -> str:
        source: str = self.cleaned_data["source"]
        if not (source.isprintable()):
            raise forms.ValidationError("A source's name has letters, digits and signs that can be seen.")
        return source

    def clean_wanted(self) -> str:
        return self.cleaned_data["wanted"] or "auto"

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            if not given.get("file") and not given.get("place"):
                self.add_error("file", "Choose a file, or name an address below.")
            if given.get("file") and given.get("place"):
                self.add_error("place", "Either a file or an address, not both. Leave one out.")
        return given

    @property
    def stored(self) -> StoredUpload | None:
        return self.cleaned_data.get("file")


class MappingForm(OperationForm):
    """Where each column goes, how names and dates are written, and under which name to keep that.

    `columns`: those of the preview's mapping, each with source, target, how and samples.
    """

    wanted = forms.ChoiceField(label="Format", choices=FORMAT_CHOICES, required=False)
    part = forms.ChoiceField(label="Table", choices=[], required=False)
    day_first = forms.BooleanField(
        label="Dates put the day first", required=False, help_text="03/04/2024 is the third of April."
    )
    last_first = forms.BooleanField(
        label="Names are written “Last, First”", required=False, help_text="They are turned round."
    )
    save_as = forms.CharField(
        label="Save this mapping as",
        required=False,
        max_length=NAME_MAX,
        help_text="A name to use it again. Empty: it is not saved.",
    )
    for_source = forms.BooleanField(label="Use it for all later files of this source", required=False)

    def __init__(self, *args: Any, result: dict[str, Any], options: dict[str, Any], source: str, **kwargs: Any) -> None:
        self._result, self._source = result, source
        super().__init__(*args, **kwargs)
        mapping = result.get("mapping") or {"columns": [], "day_first": False, "last_first": False}
        self.columns: list[dict[str, Any]] = mapping["columns"][:COLUMNS_EDITED]
        self.initial = {
            **self.initial,
            "wanted": options.get("wanted", "auto"),
            "part": options.get("table") or options.get("sheet") or "",
            "day_first": mapping["day_first"],
            "last_first": mapping["last_first"],
        }
        self._offer_parts(options)
        targets = [(name, FIELD_LABELS[name]) for name in (*FIELDS, *NAME_PARTS)]
        for place, column in enumerate(self.columns):
            if column["how"] == "list":
                continue
            stays = "in its list" if column["how"] == "in a list" else "metadata"
            name = f"column_{place}"
            self.fields[name] = forms.ChoiceField(
                label=column["source"], choices=[("", stays), *targets], required=False
            )
            self.fields[name].widget = _select(self.fields[name], column["source"])
            self.initial[name] = column["target"] or ""
        if not source:
            del self.fields["for_source"]

    def _offer_parts(self, options: dict[str, Any]) -> None:
        tables = [
            (table["name"], f"{table['name']} ({table['rows']:,} rows)") for table in self._result.get("tables", [])
        ]
        sheets = [(name, name) for name in self._result.get("sheets", [])]
        asked = options.get("table") or options.get("sheet") or ""
        parts = tables or sheets
        if asked and asked not in dict(parts):
            parts = [*parts, (asked, asked)]
        if not parts:
            del self.fields["part"]
            return
        field = self.fields["part"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - it is, a few lines above
        field.label = "Sheet" if sheets else "Table"
        field.choices = [("", "The best one"), *parts]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the table of columns shows: the column as it was found, and its select if it can go anywhere else."""
        return [
            {**column, "field": self[f"column_{place}"] if f"column_{place}" in self.fields else None}
            for place, column in enumerate(self.columns)
        ]

    def clean_save_as(self) -> str:
        name: str = self.cleaned_data["save_as"]
        ProhibitNullCharactersValidator()(name)
        if name and ("/" in name or name.endswith(".json") or not name.isprintable()):
            raise forms.ValidationError("A mapping's name has no “/” and does not end with “.json”.")
        return name

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or self.cleaned_data
        taken: dict[str, list[str]] = {}
        for place in range(len(self.columns)):
            if target := given.get(f"column_{place}"):
                taken.setdefault(target, []).append(f"column_{place}")
        for target, names in taken.items():
            for name in names if len(names) > 1 else []:
                others = ", ".join(f"“{self.fields[other].label}”" for other in names if other != name)
                self.add_error(name, f"{FIELD_LABELS[target]} is taken by {others} too. Keep one.")
        for name in [name for part in NAME_PARTS for name in taken.get(part, [])] if "name" in taken else []:
            self.add_error(name, "There is a whole name already. Send this part to the metadata, or the whole name.")
        return given

    @property
    def asked(self) -> dict[str, str]:
        """Format, table and sheet as `uploads.look_again` takes them."""
        part = self.cleaned_data.get("part", "")
        kind = "sheet" if self._result.get("sheets") else "table"
        return {"wanted": self.cleaned_data["wanted"] or "auto", "table": "", "sheet": "", kind: part}

    def says_something(self) -> bool:
        """Whether a record could be found by what is mapped; else the form says what is missing."""
        targets = {self.cleaned_data.get(f"column_{place}") for place in range(len(self.columns))}
        if targets.isdisjoint((*IDENTIFYING, *NAME_PARTS)):
            self.add_error(
                None, "No column becomes an id, e-mail, name, phone, address or city, so no record could be found again."
                " Choose one below.",
            )  # fmt: skip
            return False
        return True

    def document(self) -> MappingDocument:
        """The mapping as typed. Raises `InvalidMapping`."""
        before = (
            MappingDocument.from_json(self._result["document"]) if _is_usable(self._result) else MappingDocument({})
        )
        targets = dict(before.targets)
        for place, column in enumerate(self.columns):
            if f"column_{place}" not in self.fields:
                continue
            target = self.cleaned_data.get(f"column_{place}") or None
            if target is not None or column["source"] in targets or column["how"] != "in a list":
                targets[column["source"]] = target
        has_name = "name" in targets.values()
        parts = tuple(part for part in before.name_parts if targets.get(part) is None) if has_name else ()
        region = before.region_column if targets.get(before.region_column or "") is None else None
        whole = MappingDocument(targets, self.cleaned_data["last_first"], self.cleaned_data["day_first"], region, parts)
        return MappingDocument.from_json(whole.as_json())


def _is_usable(result: dict[str, Any]) -> bool:
    """Whether what was found can be a mapping: a file nothing of which is mapped has none yet."""
    targets = result.get("document", {}).get("columns", {}).values()
    return not set(targets).isdisjoint((*IDENTIFYING, *NAME_PARTS))


def _select(field: Any, label: str) -> forms.Widget:
    widget: forms.Widget = UnfoldAdminSelectWidget(
        attrs={"class": "mh-target", "aria-label": f"Becomes, of {label}"}, choices=field.choices
    )
    return widget


def size_text(size: int) -> str:
    """Bytes as people say them, in powers of 1,024."""
    amount, units = float(size), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:,.0f} {units[0]}" if amount >= 10 or amount == int(amount) else f"{amount:,.1f} {units[0]}"
