"""Country names and codes, however written, to ISO 3166 alpha-3. Pure."""

import unicodedata
from functools import lru_cache

import pycountry

# What people write that the standard's own names do not cover.
_SPOKEN = {
    "USA": ("us of a", "united states of america", "u s", "u s a", "america", "the united states", "estados unidos"),
    "GBR": (
        "uk",
        "u k",
        "great britain",
        "britain",
        "england",
        "scotland",
        "wales",
        "northern ireland",
        "the united kingdom",
    ),
    "RUS": ("russia",),
    "KOR": ("south korea", "korea", "republic of korea"),
    "PRK": ("north korea",),
    "IRN": ("iran",),
    "SYR": ("syria",),
    "VNM": ("vietnam",),
    "LAO": ("laos",),
    "TWN": ("taiwan",),
    "BOL": ("bolivia",),
    "VEN": ("venezuela",),
    "TZA": ("tanzania",),
    "MDA": ("moldova",),
    "CZE": ("czech republic", "czechia"),
    "CIV": ("ivory coast", "cote d ivoire"),
    "COD": ("democratic republic of the congo", "dr congo", "drc", "congo kinshasa"),
    "COG": ("republic of the congo", "congo brazzaville"),
    "MKD": ("macedonia", "fyrom"),
    "TUR": ("turkey",),
    "SWZ": ("swaziland",),
    "MMR": ("burma",),
    "CPV": ("cape verde",),
    "PSE": ("palestine",),
    "VAT": ("vatican", "vatican city"),
    "NLD": ("holland", "the netherlands"),
    "DEU": ("deutschland", "west germany"),
    "ARE": ("uae", "u a e", "emirates"),
    "BRN": ("brunei",),
    "FSM": ("micronesia",),
    "ESP": ("espana",),
    "BRA": ("brasil",),
    "ITA": ("italia",),
    "POL": ("polska",),
    "AUT": ("osterreich",),
    "CHE": ("schweiz", "suisse", "svizzera"),
    "BEL": ("belgie", "belgique"),
    "SWE": ("sverige",),
    "NOR": ("norge",),
    "DNK": ("danmark",),
    "FIN": ("suomi",),
    "HUN": ("magyarorszag",),
    "MEX": ("méxico", "mexico"),
    "JPN": ("nippon",),
}


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    letters = "".join(
        character if character.isalnum() else " " for character in decomposed if not unicodedata.combining(character)
    )
    return " ".join(letters.split())


@lru_cache(maxsize=1)
def _codes() -> dict[str, str]:
    codes: dict[str, str] = {}
    for country in pycountry.countries:
        names = [country.alpha_2, country.alpha_3, country.name]
        names += [getattr(country, name) for name in ("official_name", "common_name") if hasattr(country, name)]
        for name in names:
            codes[_plain(name)] = country.alpha_3
    for alpha_3, spoken in _SPOKEN.items():
        for name in spoken:
            codes[_plain(name)] = alpha_3
    return codes


@lru_cache(maxsize=50_000)
def alpha_3(text: str) -> str | None:
    """The alpha-3 code of a country's code or name in any case; None when it is not one."""
    return _codes().get(_plain(text))


@lru_cache(maxsize=1)
def regions() -> dict[str, str]:
    """Alpha-3 → alpha-2, the form in which telephone rules name a region."""
    return {country.alpha_3: country.alpha_2 for country in pycountry.countries}
