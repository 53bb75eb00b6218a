"""The Grocery Store data set as a shop to search by photo: 81 products with their pictures from a shop's site.

Source: Klasson, Zhang and Kjellström (2019, arXiv:1901.00711), MIT. Shop photos taken with phones come with it; some of
its test set are put on the page to try, chosen by their place in the list and not by what is found with them.
"""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import orjson

from endcap.catalog.product import Product
from endcap.encoders import open_text_encoder
from endcap.errors import ConfigurationError, EncoderMismatch
from endcap.files import write_atomically
from endcap.indexing import index_products
from endcap.runtime import open_engine, open_fetcher
from endcap.settings import Settings
from endcap.shared_data import VARIABLE, shared_file
from endcap_reranker.demo.prepare import engine_of, has_products
from endcap_reranker.storefront import Showcase, save_showcase

FOLDER = "grocery-store-images"
ARCHIVE = "images_192.tar.gz"
STATE_FILE = "groceries.json"
#: Raise it when the products or pictures change.
VERSION = 1
#: One class in so many gives a photo to try.
_EVERY = 10
_TEXT_BYTES = 20_000
QUERIES = ("something for guacamole", "citrus fruit", "lactose free", "root vegetable", "apple juice", "green apple")
NOTE = (
    "81 products of the Grocery Store data set (Klasson, Zhang and Kjellström, 2019, MIT), which names no prices. "
    "The photos to try are phone pictures of its test set."
)
#: (stage, done, total). Stages: "data", "products", "pictures".
Progress = Callable[[str, int, int], None]


def is_prepared(settings: Settings) -> bool:
    """Whether the shop is there as these settings want it; quick."""
    try:
        state = orjson.loads((settings.data_dir / STATE_FILE).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return False
    return bool(state == _state(settings)) and has_products(settings)


def pictures_folder(data_dir: Path) -> Path:
    """Where this shop's pictures are put: the setting ``image_dir``."""
    return data_dir / "pictures"


def prepare(settings: Settings, progress: Progress) -> None:
    """Set the shop up in ``settings.data_dir``; whatever was there of it is replaced.

    Raises:
        ConfigurationError: the data set is not there, or an encoder cannot be had.
    """
    try:
        from endcap.images.encoder import open_image_encoder
        from endcap.images.index import FILE, index_photos
    except ImportError as error:
        raise ConfigurationError(f"{error.name} is missing: pip install 'endcap[images]'") from None
    progress("data", 0, 1)
    products, samples = unpack(grocery_folder(), pictures_folder(settings.data_dir))
    progress("data", 1, 1)
    text = open_text_encoder(settings)
    pictures = open_image_encoder(settings, text)
    if pictures is None:
        raise ConfigurationError("this shop is searched by photo: image_encoder must not be none")
    engine = open_engine(settings)
    try:
        progress("products", 0, len(products))
        try:
            index_products(products, engine, text)
        except EncoderMismatch:
            index_products(products, engine, text, rebuild=True)
        progress("products", len(products), len(products))
        progress("pictures", 0, len(products))
        index_photos(
            products,
            pictures,
            open_fetcher(settings),
            settings.data_dir / FILE,
            lambda summary: progress("pictures", summary.read, len(products)),
        )
    finally:
        engine.close()
    save_showcase(Showcase("the grocery shop", queries=QUERIES, note=NOTE, photos=tuple(samples)), settings.data_dir)
    write_atomically(settings.data_dir / STATE_FILE, orjson.dumps(_state(settings)))


def grocery_folder() -> Path:
    """The data set's folder.

    Raises:
        ConfigurationError: it is not there; the message says how to get it.
    """
    try:
        return shared_file(FOLDER, ARCHIVE).parent
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}. This shop is made of {FOLDER}/ (classes.csv, test.txt and {ARCHIVE}: the folders of "
            "github.com/marcusklasson/GroceryStoreDataset's `dataset/` in one archive); "
            f"put it into a folder that {VARIABLE} names"
        ) from None


def unpack(folder: Path, into: Path) -> tuple[list[Product], list[str]]:
    """The products, their pictures and the photos to try, as paths below ``into``, where they are written."""
    rows = _rows(folder / "classes.csv")
    tried = _samples(folder / "test.txt")
    iconic = {_inside(row[4]): f"iconic/{row[0]}.jpg" for row in rows}
    photos = {path: f"tried/{PurePosixPath(path).name}" for path in tried}
    texts = {_inside(row[5]) for row in rows}
    said: dict[str, str] = {}
    for name in ("iconic", "tried"):
        (into / name).mkdir(parents=True, exist_ok=True)
    wanted = {**iconic, **photos}
    with tarfile.open(folder / ARCHIVE) as archive:
        for member in archive:
            name = _inside(member.name)
            if not member.isfile() or (name not in wanted and name not in texts):
                continue
            stream = archive.extractfile(member)
            assert stream is not None
            if name in wanted:  # under names of ours: an archive's own may lead anywhere
                write_atomically(into / wanted[name], stream.read())
            else:
                said[name] = stream.read(_TEXT_BYTES).decode("utf-8", "replace").strip()
    products = [
        Product(
            id=row[0],
            title=row[0].replace("-", " "),
            description=said.get(_inside(row[5]), ""),
            categories=_categories(row[4], row[2]),
            image=f"iconic/{row[0]}.jpg",
        )
        for row in rows
    ]
    return products, list(photos.values())


def _rows(file: Path) -> list[list[str]]:
    """Class name, id, coarse name, coarse id, path of the picture, path of the description."""
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))[1:]


def _categories(path: str, coarse: str) -> tuple[str, ...]:
    shelf = _inside(path).split("/")[1]
    return tuple(dict.fromkeys((shelf, coarse.replace("-", " "))))


def _samples(file: Path) -> list[str]:
    """The first photo of every so many classes."""
    first: dict[int, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            path, fine, _ = line.split(",")
            first.setdefault(int(fine), _inside(path.strip()))
    return [first[one] for one in sorted(first)[::_EVERY]]


def _inside(path: str) -> str:
    return path.removeprefix("./").lstrip("/")


def _state(settings: Settings) -> dict[str, object]:
    where = {"engine": engine_of(settings)} if settings.engine_url else {}
    return {"version": VERSION, "text": settings.text_encoder, "image": settings.image_encoder, **where}
