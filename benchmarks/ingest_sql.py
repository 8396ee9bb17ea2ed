"""P7's other side: the rules of `ingestion.cleansing` as one INSERT … SELECT that ClickHouse runs alone.

The words, codes, patterns, lengths and weights are the product's own, so that both sides do the same work. What is written
differently, as ClickHouse has it: a value is only looked at by a costly rule when a cheap one says that it must be; words for
countries and states are looked up once for each different one (LowCardinality).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestion.mapping import Mapping

# What ClickHouse's side leaves out, and the product does.
LEFT_OUT = (
    "duplicates are not looked for, dead letters not written, no checkpoint made; numbers of regions with rewriting rules "
    "(Brazil) are taken with their country's code alone"
)
REASONS = {"email": "invalid", "phone": "invalid", "created_date": "invalid", "country": "unknown", "status": "unknown"}
_SPACES = r"[\s\p{Z}\p{Cc}]+"
_UNTIDY = r"^[\s\p{Z}\p{Cc}]|[\s\p{Z}\p{Cc}]$|[\s\p{Z}\p{Cc}]{2}|[\p{Cc}\p{Zl}\p{Zp}]|\x{a0}"


def insert_select(path: str, columns: Sequence[str], mapping: "Mapping", *, job_id: str, at: str, table: str) -> str:
    """The statement that loads a CSV file with a header of `columns`; `at`: its `ingested_at`, UTC."""
    from ingestion.fields import FIELDS, IDENTIFYING, LENGTH_MAX

    targets = {column.target: column.source for column in mapping.columns if column.target}
    place = {name: number for number, name in enumerate(columns)}
    given = {name: f"t{place[targets[name]]}" if name in targets else "''" for name in FIELDS}
    metadata = {name: f"t{place[name]}" for name in columns if name not in set(targets.values())}
    levels = [
        [f"{_tidy(f'c{number}')} AS t{number}" for number in range(len(columns))],
        [f"{_blanked(given[name])} AS g_{name}" for name in FIELDS],
        [f"length(g_{name}) > {most} AS long_{name}" for name, most in LENGTH_MAX.items()],
        [f"if(long_{name}, '', g_{name}) AS v_{name}" for name in FIELDS],
    ]
    levels += _side_by_side(_email(), _country(), _status(), _phone(), _date(day_first=mapping.day_first))
    # Each field's bad values are kept in the metadata, under the name of their source.
    kept = {targets.get(name, name): f"if(long_{name}, g_{name}, '')" for name in FIELDS}
    for name in REASONS:
        also = " OR cut_phone" if name == "phone" else ""
        kept[targets.get(name, name)] = f"if(long_{name} OR wrong_{name}{also}, g_{name}, '')"
    levels.append([f"{value} AS kept_{number}" for number, value in enumerate(kept.values())])
    kept = {name: f"kept_{number}" for number, name in enumerate(kept)}
    levels.append([f"{_json(metadata | kept)} AS said"])
    result = {name: f"v_{name}" for name in ("user_id", "name", "address", "city")}
    result |= {name: f"r_{name}" for name in ("email", "phone", "country", "status")}
    texts = ["ifNull(toString(r_date), '')" if name == "created_date" else result[name] for name in FIELDS]
    levels.append([f"MD5(concat({', char(31), '.join([*texts, 'said'])})) AS hash"])
    usable = " OR ".join(f"{result[name]} != ''" for name in IDENTIFYING)
    chosen = {
        "id": "reinterpretAsUUID(concat(reverse(substring(hash, 1, 8)), reverse(substring(hash, 9, 8))))",
        "source_file": f"'{path.rpartition('/')[2]}'",
        "job_id": f"toUUID('{job_id}')",
        "ingested_at": f"toDateTime64('{at}', 3, 'UTC')",
        **{name: result[name] for name in FIELDS if name != "created_date"},
        "created_date": "r_date",
        "metadata": "said",
        "data_quality_score": f"toFloat32({_score(result)} / 100)",
        "validation_errors": _errors(FIELDS),
    }
    structure = ", ".join(f"c{number} String" for number in range(len(columns)))
    # A level for what builds on what: names that stood for one another side by side would be written out again and again.
    source = f"file({_text(path)}, 'CSV', {_text(structure)})"
    for level in levels:
        source = f"(SELECT *, {', '.join(level)} FROM {source})"
    selected = ", ".join(f"{sql} AS o_{name}" for name, sql in chosen.items())
    return f"INSERT INTO {table} ({', '.join(chosen)}) SELECT {selected} FROM {source} WHERE {usable}"


def _side_by_side(*rules: list[str]) -> list[list[str]]:
    """The first steps of all rules, then the second ones, and so on."""
    levels = max(map(len, rules))
    return [[steps[level] for steps in rules if level < len(steps)] for level in range(levels)]


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _texts(values: Sequence[str]) -> str:
    return "[" + ", ".join(map(_text, values)) + "]"


def _tidy(column: str) -> str:
    mended = (
        f"if(match({column}, {_text(_UNTIDY)}), trimBoth(replaceRegexpAll({column}, {_text(_SPACES)}, ' ')), {column})"
    )
    return f"if(isValidASCII({column}), {mended}, normalizeUTF8NFC({mended}))"


def _blanked(value: str) -> str:
    from ingestion.cleansing.text import BLANKS

    return f"if({value} IN ({', '.join(map(_text, BLANKS))}), '', {value})"


def _email() -> list[str]:
    from ingestion.cleansing.normalise import _EMAIL, _PLAIN_EMAIL

    plain = _text(_PLAIN_EMAIL.removeprefix("(?-u)"))
    return [
        "lowerUTF8(v_email) AS low_email",
        "if(startsWith(low_email, 'mailto:'), substring(low_email, 8), low_email) AS e_email",
        f"e_email != '' AND NOT if(match(e_email, {plain}), 1, match(e_email, {_text(_EMAIL)})) AS wrong_email",
        "if(wrong_email, '', e_email) AS r_email",
    ]


def _country() -> list[str]:
    from ingestion.countries import _codes

    codes = _codes()
    bare = "replaceRegexpAll(normalizeUTF8NFKD(lowerUTF8(toLowCardinality(v_country))), '\\\\p{M}', '')"
    return [
        f"trimBoth(replaceRegexpAll({bare}, '[^\\\\p{{L}}\\\\p{{N}}]+', ' ')) AS plain_country",
        f"toString(transform(plain_country, {_texts(list(codes))}, {_texts(list(codes.values()))}, '')) AS r_country",
        "v_country != '' AND r_country = '' AS wrong_country",
    ]


def _status() -> list[str]:
    from ingestion.cleansing.statuses import BY_WORD

    word = "trimBoth(replaceRegexpAll(lowerUTF8(toLowCardinality(v_status)), '[-_\\\\s]+', ' '))"
    words = [key.replace("_", " ") for key in BY_WORD]
    return [
        f"toString(transform({word}, {_texts(words)}, {_texts(list(BY_WORD.values()))}, '')) AS r_status",
        "v_status != '' AND r_status = '' AS wrong_status",
    ]


def _phone() -> list[str]:
    from ingestion.cleansing.phones import _DIGITS_MAX, _DIGITS_MIN, _EXTENSION, _WRITTEN_LIKE_ONE, _international

    e164 = "concat('+', if(startsWith(digits, '00'), substring(digits, 3), digits)) AS e164"
    return [
        f"match(v_phone, {_text(_EXTENSION)}) AS has_extension",
        f"if(has_extension, replaceRegexpOne(v_phone, {_text(_EXTENSION)}, ''), v_phone) AS number",
        "replaceRegexpAll(number, '\\\\D+', '') AS digits",
        "startsWith(number, '+') OR startsWith(number, '00') AS plus",
        f"match(number, {_text(_WRITTEN_LIKE_ONE)}) AND length(digits) BETWEEN {_DIGITS_MIN} AND {_DIGITS_MAX + 2} AS shaped",
        e164,
        (
            f"multiIf(NOT shaped, '', plus, if(match(e164, {_text(_international())}), e164, ''),"
            f" r_country != '', {_national()}, number) AS r_phone"
        ),
        "v_phone != '' AND r_phone = '' AS wrong_phone",
        "v_phone != '' AND has_extension AND r_phone != '' AS cut_phone",
    ]


def _national() -> str:
    """A number written at home, by its country: as given, without the trunk prefix, without the country code."""
    from ingestion.cleansing.phones import _region
    from ingestion.countries import alpha_3, regions
    from ingestion.generator_words import COUNTRIES

    cases = []
    for country, *_ in COUNTRIES:
        code = str(alpha_3(country))
        region = _region(regions()[code])
        if region is None or not region.simple:
            continue
        forms = ["digits"]
        if region.national_prefix:
            forms.append(f"replaceRegexpOne(digits, {_text(f'^(?:{region.national_prefix})')}, '')")
        forms.append(f"if(startsWith(digits, '{region.code}'), substring(digits, {len(region.code) + 1}), digits)")
        tried = ", ".join(f"match({form}, {_text(region.pattern)}), concat('+{region.code}', {form})" for form in forms)
        cases.append(f"r_country = '{code}', multiIf({tried}, '')")
    return f"multiIf({', '.join(cases)}, number)"


def _date(*, day_first: bool) -> list[str]:
    from ingestion.cleansing import dates

    # %M and %i mean to ClickHouse what MySQL means by them.
    forms = (*dates._YEAR_FIRST, *(dates._DAY_FIRST if day_first else dates._MONTH_FIRST), *dates._SPELLED)  # noqa: SLF001
    parsed = [f"toDate32(parseDateTime64OrNull(day, {_text(form.replace('%B', '%M'))}, 'UTC'))" for form in forms]
    seconds, millis = _text(dates._EPOCH_SECONDS), _text(dates._EPOCH_MILLIS)  # noqa: SLF001
    parsed.append(f"if(match(day, {seconds}), toDate32(toDateTime64(toInt64OrZero(day), 0, 'UTC')), NULL)")
    parsed.append(f"if(match(day, {millis}), toDate32(toDateTime64(intDiv(toInt64OrZero(day), 1000), 0, 'UTC')), NULL)")
    return [
        "replaceRegexpOne(v_created_date, '[T ]\\\\d{1,2}:\\\\d\\\\d.*$', '') AS day",
        "toDate32OrNull(substring(v_created_date, 1, 10)) AS first_day",
        f"if(v_created_date = '' OR isNotNull(first_day), first_day, coalesce({', '.join(parsed)})) AS some_day",
        f"if(some_day BETWEEN toDate32('{dates.EARLIEST}') AND toDate32('{dates.LATEST}'), some_day, NULL) AS r_date",
        "v_created_date != '' AND isNull(r_date) AS wrong_created_date",
    ]


def _json(members: dict[str, str]) -> str:
    """A canonical object: keys sorted, empty values left out."""
    parts = []
    for key in sorted(members):
        value = members[key]
        escaped = f"replaceAll(replaceAll({value}, '\\\\', '\\\\\\\\'), '\"', '\\\\\"')"
        plain = f"if(match({value}, '[\"\\\\\\\\]'), {escaped}, {value})"
        parts.append(f"if({value} = '', '', concat(',\"{key}\":\"', {plain}, '\"'))")
    return f"concat('{{', substring(concat({', '.join(parts)}), 2), '}}')"


def _score(result: dict[str, str]) -> str:
    from ingestion.fields import WEIGHTS

    return (
        "("
        + " + ".join(
            f"{'isNotNull(r_date)' if name == 'created_date' else f'({result[name]} != {chr(39) * 2})'} * {weight}"
            for name, weight in WEIGHTS.items()
        )
        + ")"
    )


def _errors(fields: Sequence[str]) -> str:
    marks = []
    for name in fields:
        marks.append(f"if(long_{name}, '{name}:too_long', '')")
        if name in REASONS:
            marks.append(f"if(wrong_{name}, '{name}:{REASONS[name]}', '')")
    bad = " OR ".join([f"long_{name}" for name in fields] + [f"wrong_{name}" for name in REASONS])
    return f"if({bad}, arrayFilter(mark -> mark != '', [{', '.join(marks)}]), [])"
