"""Search by photo in a shop that trained on photos of its own: ``endcap evaluate grocery-shop``.

The same data and split (:mod:`.grocery`), by way of what a shop uses: a catalogue of the 81 product pictures in the
embedded engine, ``endcap train-photos`` over ten train photos of each product as it stands, ``endcap photos``, and
searches by six test photos of each. Sixteen products, drawn by the seed, came after the training: it saw neither photos
nor pictures of them. @k: share of the photos whose product is among the first k of all 81; no text encoder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console

from endcap.catalog.product import Product
from endcap.images.encoder import open_image_encoder
from endcap.images.index import FILE, PhotoSearch, index_photos
from endcap.indexing import index_products
from endcap.opening import open_engine, open_fetcher
from endcap.results import Results
from endcap.settings import Settings, load_settings
from endcap_workers.evaluation.grocery import Kind, Photos, kinds, unpack
from endcap_workers.training.command import Bars
from endcap_workers.training.photos.run import Request, train_photos

TRAINED, SEARCHED, LATER = 10, 6, 16
PACKAGED = "efficientnet-lite0"


def run(seed: int = 0) -> Results:
    """Train, index and search; the packaged network beside it.

    Raises:
        ConfigurationError: the data or a package is not there.
    """
    results = Results("Search by photo in a shop", "endcap evaluate grocery-shop", seed)
    products, rng = kinds(), np.random.default_rng(seed)
    later = rng.permutation(len(products))[:LATER]
    now = np.setdiff1d(np.arange(len(products)), later)
    train, test = Photos.read("train"), Photos.read("test")
    with tempfile.TemporaryDirectory() as scratch, Bars(Console(stderr=True)) as bars:
        folder = Path(scratch)
        unpack(folder)
        photos = folder / "photos.tsv"
        photos.write_text(
            "".join(f"{train.files[row]}\t{train.fine[row]}\n" for row in _some(train, now, TRAINED, rng))
        )
        searched = _some(test, np.arange(len(products)), SEARCHED, rng)
        is_later = np.isin(test.fine[searched], later)
        tuned = folder / "tuned"
        settings = load_settings(
            data_dir=folder / "data", engine_url="", text_encoder="none", image_dir=str(folder), image_encoder=PACKAGED
        )
        shop = [_product(one) for one in products]
        with closing(open_engine(settings)) as engine:
            index_products(shop, engine, None)
        made = train_photos(settings, Request(photos, tuned, seed), folder / "work", bars.progress, bars.report)
        for name, encoder in (("packaged", PACKAGED), ("tuned", str(tuned))):
            found = _search(settings.model_copy(update={"image_encoder": encoder}), shop, folder, test, searched, bars)
            for what, rows in (("products of the training", ~is_later), ("products that came later", is_later)):
                results.add(f"{name}: {what}", {f"@{k}": float((found[rows] < k).mean()) for k in (1, 5, 10)})
    said = made.description
    results.notes.append(
        f"{said['photos']['training']:,} photos trained, {said['photos']['held_out']} were held out: their product's "
        f"picture was the nearest of those trained on in {said['metrics']['packaged']['product@1']:.4f} as packaged, "
        f"{said['metrics']['tuned']['product@1']:.4f} as tuned; {len(searched) - is_later.sum()} and {is_later.sum()} "
        "photos searched"
    )
    return results


def _some(photos: Photos, fine: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many photos of each kind."""
    return np.concatenate([rng.permutation(np.flatnonzero(photos.fine == one))[:most] for one in fine])


def _product(kind: Kind) -> Product:
    return Product(id=str(kind.fine), title=kind.name, image=kind.picture)


def _search(
    settings: Settings, shop: Sequence[Product], folder: Path, test: Photos, searched: np.ndarray, bars: Bars
) -> np.ndarray:
    """At which place each photo's product was found, from 0 on; int64 (n,)."""
    encoder, file = open_image_encoder(settings, None), settings.data_dir / FILE
    assert encoder is not None
    index_photos(shop, encoder, open_fetcher(settings), file)
    search, places = PhotoSearch(file, lambda: encoder), list[int]()
    for done, row in enumerate(searched, 1):
        ids = search.nearest((folder / test.files[row]).read_bytes(), len(shop)).ids
        places.append(ids.index(str(test.fine[row])))
        bars.progress(done, len(searched), "searching")
    return np.array(places)
