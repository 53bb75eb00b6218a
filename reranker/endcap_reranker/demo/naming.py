"""Readable names for a till's abbreviations: "PNT BTR/JELLY/JAMS" becomes "Peanut Butter, Jelly and Jam".

The data set names a product by department, category and type in capitals, cut off after 30 characters, and by package
size. Two tables (``titles.tsv``, ``categories.tsv``) say what a shelf label would say where the words alone do not;
the rules here spell out the rest.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files

#: Till department -> aisle of the shop. Groceries and drugstore goods are spread by category.
AISLES = {
    "CHEF SHOPPE": "Deli",
    "COSMETICS": "Health & Beauty",
    "DELI": "Deli",
    "DRUG GM": "Home & Leisure",
    "FLORAL": "Flowers & Garden",
    "FROZEN GROCERY": "Produce",
    "GARDEN CENTER": "Flowers & Garden",
    "GROCERY": "Pantry",
    "MEAT": "Meat & Seafood",
    "MEAT-PCKGD": "Meat & Seafood",
    "NUTRITION": "Natural Foods",
    "PASTRY": "Bakery",
    "PHOTO & VIDEO": "Dairy & Eggs",
    "PRODUCE": "Produce",
    "RESTAURANT": "Deli",
    "SALAD BAR": "Deli",
    "SEAFOOD": "Meat & Seafood",
    "SEAFOOD-PCKGD": "Meat & Seafood",
    "SPIRITS": "Beer, Wine & Spirits",
    "TRAVEL & LEISURE": "Produce",
}

_WORDS = {
    "accss": "accessories", "bev": "beverages", "bkd": "baked", "bn": "beans", "brkfst": "breakfast", "btl": "bottle",
    "btr": "butter", "carb": "carbonated", "cat": "cat", "choc": "chocolate", "chix": "chicken", "ckys": "cookies",
    "cnd": "canned", "cndy": "candy", "cntrl": "control", "conc": "concentrate", "containr": "container",
    "crkr": "crackers", "decaffinated": "decaf", "dnr": "dinner", "dnrs": "dinners", "drng": "dressing",
    "drnk": "drink", "drnks": "drinks", "drsng": "dressing", "dsh": "dish", "econom": "economy", "fd": "food",
    "fds": "foods", "fem": "feminine", "flvr": "flavored", "flvrd": "flavored", "frd": "fried", "frz": "frozen",
    "frzn": "frozen", "gds": "goods", "grnd": "ground", "hygn": "hygiene", "jce": "juice", "juic": "juice",
    "lnchmt": "lunch meat", "lunchmeat": "lunch meat", "mlk": "milk", "mlt": "multi", "mnrl": "mineral",
    "mult": "multi", "mxs": "mixes", "othe": "", "oth": "", "oriental": "Asian", "pac": "pack", "pk": "pack",
    "pkg": "", "pkgd": "packaged", "pkld": "pickled", "plstc": "plastic", "pnt": "peanut", "portabella": "portobello",
    "prem": "premium", "prep": "prepared", "prod": "products", "protien": "protein", "pwdr": "powder",
    "pwdrs": "powders", "refigerated": "refrigerated", "refrgratd": "refrigerated", "refrig": "refrigerated",
    "sal": "salad", "sald": "salad", "saus": "sausage", "sft": "soft", "sgl": "single", "shlfsh": "shellfish",
    "sld": "salad", "sndwch": "sandwich", "sngl": "single", "snks": "snacks", "sprd": "spread", "srv": "serve",
    "substitute": "substitute", "sweetners": "sweeteners", "swt": "sweet", "tiss": "tissue", "trsh": "trash",
    "veg": "vegetable", "w": "with", "whl": "whole", "whlsm": "wholesome", "wtr": "water", "xmas": "Christmas",
    "mens": "men's", "womens": "women's", "kids": "kids'", "childrens": "children's",
}  # fmt: skip
#: Words of stock-keeping that mean nothing to a shopper.
_NOISE = {"misc", "miscellaneous", "other", "others", "all", "bulk", "n", "etc", "ex", "exc", "except", "incl", "dept"}
_SMALL = {"and", "or", "of", "with", "in", "on", "for", "to", "the"}
_KEEP = {"BBQ", "TV", "CD", "DVD"}
#: One bare adjective ("Premium") needs the noun of its category.
_BARE = {"premium", "value", "economy", "regular", "lean", "angus", "fresh", "natural", "other"}
#: "APPLES GALA" reads "Gala Apples".
_NOUN_FIRST = (
    "apples", "carrots", "cherries", "grapes", "melons", "mushrooms", "nectarines", "nuts", "onions",
    "oranges", "peaches", "pears", "peppers", "potatoes", "tomatoes",
)  # fmt: skip
_UNITS = {
    "OZ": "oz", "FZ": "fl oz", "LB": "lb", "CT": "ct", "PK": "pack", "ML": "ml", "L": "l", "LT": "l", "LTR": "l",
    "GA": "gal", "GAL": "gal", "PT": "pint", "QT": "qt", "GM": "g", "G": "g", "KG": "kg", "SQ": "sq", "FT": "ft",
    "IN": "in", "DZ": "dozen", "EA": "each", "CTN": "carton", "LOAD": "loads", "REC": "", "SHT": "sheets",
    "PINT": "pint", "SZ": "size", "INCH": "in", "OUNCE": "oz", "PC": "pieces",
}  # fmt: skip


@lru_cache(maxsize=1)
def _titles() -> dict[str, str]:
    return {row[0]: row[1] for row in _table("titles.tsv")}


@lru_cache(maxsize=1)
def _categories() -> dict[str, tuple[str, str]]:
    return {row[0]: (row[1], row[2]) for row in _table("categories.tsv")}


def _table(name: str) -> list[list[str]]:
    text = (files(__package__) / name).read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


def is_product(department: str, category: str, product_type: str) -> bool:
    """Whether this is something to put on a shelf: coupons, fuel, deposits, tickets, services and tobacco are not."""
    if not product_type or product_type.startswith(("MISC SALES TRANS", "PRODUCE DISCONTINUED", "COUPON")):
        return False
    return department in AISLES and _categories().get(category, ("", ""))[0] != "-"


def aisle(department: str, category: str) -> str:
    """The first level of the category path."""
    by_category = _categories().get(category, ("", ""))[0] if department in {"GROCERY", "DRUG GM"} else ""
    return by_category or AISLES[department]


@lru_cache(maxsize=4096)
def category_name(category: str) -> str:
    """The second level of the category path; empty where the till knows none."""
    return _categories().get(category, ("", ""))[1] or spell_out(category)


@lru_cache(maxsize=8192)
def type_name(category: str, product_type: str) -> str:
    """What the product is: the third level of the path, and the title without the size."""
    titles = _titles()
    exact = titles.get(f"{category}|{product_type}") or titles.get(product_type)
    if exact:
        return exact
    name = spell_out(product_type)
    if name.lower() in _BARE and category:
        return f"{name} {category_name(category)}"
    return name or category_name(category)


def spell_out(text: str) -> str:
    """Capitals of the till in words: abbreviations expanded, brackets and stock-keeping words dropped, Title Case."""
    under = re.search(r"\((?:50% AND U|UNDER)", text) and "JUICE" in text
    text = re.sub(r"\bW/(?=\w)", "WITH ", re.sub(r"\([^)]*\)?", " ", text))
    if " - " in text and not text.endswith(" -"):
        head, _, tail = text.partition(" - ")
        text = f"{tail} {head}"
    text = re.sub(r"\s*:\s*|-(?=MAGAZINE)", " ", text.replace("&", " and "))
    words = [word for part in text.split("/") for word in [*_expand(part), "/"]][:-1]
    if words and words[0].lower() in _NOUN_FIRST and "/" not in words and len(words) > 1:
        words = [*words[1:], words[0]]
    return _join(words) + (" Drink" if under else "")


def size_name(size: str) -> str:
    """ "22 LB" becomes "22 lb", "10 3/4 OZ" "10 3/4 oz"; anything unclear comes back in lower case."""
    words = [_UNITS.get(word, word.lower()) for word in size.replace("/", " / ").split()]
    if any(re.fullmatch(r"\d{5,}", word) for word in words) or size.split()[:1] in (["N"], ["L"]):
        words = words[1:] if words[0] in {"n", "l"} else []  # a stock number, or a stray letter before the size
    text = " ".join(word for word in words if word).replace(" / ", "/")
    text = re.sub(r"\b(\d+)\.0\b", r"\1", re.sub(r"(?<![\d.])\.(\d)", r"0.\1", text))
    return f"1 {text}" if text in {"pint", "gal", "qt", "carton"} else text


def title(name: str, size: str) -> str:
    """The title on the shelf: name and size."""
    return ", ".join(part for part in (name, size_name(size)) if part)


def brand_name(manufacturer: int, brand: str) -> str:
    """A label for a manufacturer: the data set tells private label from national brands, not their names."""
    return "Store Brand" if brand == "Private" else f"Brand {manufacturer}"


def _expand(part: str) -> list[str]:
    words = []
    for raw in re.findall(r"[A-Z0-9%.'-]+", part.upper()):
        word = _WORDS.get(raw.lower().strip("."), raw if raw in _KEEP else raw.lower().strip(".-"))
        if word and word.lower() not in _NOISE:
            words.extend(word.split())
    return words


def _join(words: list[str]) -> str:
    parts = [part.split() for part in " ".join(words).split("/")]
    groups = [" ".join(part) for part in parts if part]
    text = ", ".join(groups[:-1]) + " and " + groups[-1] if len(groups) > 1 else "".join(groups)
    text = re.sub(r"(^and )|( and$)", "", re.sub(r"\band and\b", "and", text))
    return " ".join(
        word if word in _KEEP or (word in _SMALL and n) else _capital(word) for n, word in enumerate(text.split())
    )


def _capital(word: str) -> str:
    return "-".join(part[:1].upper() + part[1:] for part in word.split("-"))
