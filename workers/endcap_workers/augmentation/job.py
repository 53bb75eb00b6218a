"""Retrains the generator of the live interest model, and puts it into force where it helps.

The model itself stays as it is: the new bundle has the same weights and one thing more in its graph.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from endcap.augmentation import GRAPH, LEARNED, is_switched_on
from endcap.bundles import WEIGHTS, Bundle, inputs_of, live_bundle, load_bundle, write_bundle
from endcap.catalog.product import PATH_SEPARATOR
from endcap.catalog.table import ProductTable
from endcap.encoders import text_encoder_at_hand
from endcap.errors import EndcapError, InvalidInput, TooLittle
from endcap.gates import Verdict
from endcap.jobs import JobCancelled
from endcap.pictures import FILE as PICTURES
from endcap.pictures import WIDTH, PictureSource
from endcap.profiles import short_keys
from endcap.registry import INTEREST, open_registry
from endcap.runtime import open_database, open_engine
from endcap.sequences import Alignment, InputSpec
from endcap.settings import Settings
from endcap.stores.aliases import Aliases
from endcap.stores.database import Database
from endcap.stores.events import EventLog, kept
from endcap.stores.flags import Flags
from endcap.stores.generated import GeneratedProduct, GeneratedProducts, generated_id
from endcap_workers.augmentation import GENERATORS
from endcap_workers.augmentation.base import Generator, GeneratorDiverged
from endcap_workers.augmentation.files import save_generator
from endcap_workers.augmentation.files import to_onnx as generator_to_onnx
from endcap_workers.augmentation.gate import KIND, AugmentationGate, helps
from endcap_workers.augmentation.interest import Choice, Material, attach, blend, choose, content_of, material
from endcap_workers.augmentation.virtual import VirtualProducts, enriched, virtual_products
from endcap_workers.models import InterestModel
from endcap_workers.training.export import to_onnx
from endcap_workers.training.weights import model_of

Progress = Callable[[float, float, str], None]
#: Share of the learned products that must have a picture, for the generator to read pictures.
ENOUGH_PICTURES = 0.1
#: Latest actions of a shopper that are read.
MOST_ACTIONS = 200
#: Keys of a bundle's description that are made anew; the others go along.
_MADE_ANEW = frozenset(
    {
        "format", "name", "version", "created", "specification", "specification_digest", "tensors", "metrics",
        "data_window", "seed", "libraries", "calibration", "files", "augmentation",
    }
)  # fmt: skip


def augment(
    settings: Settings, seed: int = 0, progress: Progress = lambda *_: None, names: tuple[str, ...] = tuple(GENERATORS)
) -> Mapping[str, Any]:
    """Train, choose, judge, register, and promote where the gate lets it pass. The result is plain JSON.

    Raises:
        TooLittle: there is nothing that a generator could be made for yet; the message says what is missing.
        InvalidInput: the live model and the shop's settings do not go together.
    """
    if not settings.augmentation or not is_switched_on(settings.models_folder):
        return {"outcome": "switched off"}
    database = open_database(settings)
    try:
        return _augment(settings, database, seed, progress, names)
    finally:
        database.close()


def augment_after(settings: Settings, seed: int = 0, progress: Progress = lambda *_: None) -> Mapping[str, Any]:
    """:func:`augment` for a model that has just gone live; where none can be made, the outcome says why."""
    try:
        return augment(settings, seed, progress)
    except JobCancelled:
        raise
    except EndcapError as error:
        return {"outcome": "none", "reason": str(error)}


def _augment(
    settings: Settings, database: Database, seed: int, progress: Progress, names: tuple[str, ...]
) -> Mapping[str, Any]:
    registry = open_registry(settings, database)
    for kind in (INTEREST, KIND):
        standing = registry.live(kind)
        if standing is not None and standing.pinned:
            return {"outcome": "pinned", "reason": f"{kind} {standing.version} is pinned: nothing may replace it"}
    progress(0, 10, "reading the catalogue")
    bundle, model = _live(settings)
    weights = (bundle.folder / WEIGHTS).read_bytes()
    table = _table(settings)
    spec = with_pictures(bundle.spec, table, bundle.vocabulary.products)
    aligned = Alignment(table, bundle.vocabulary, spec)
    content = content_of(table, aligned, bundle.vocabulary.products, bundle.vocabulary.sizes(spec.codes))
    progress(1, 10, "reading the log")
    log, excluded = EventLog(database), Flags(database).excluded_shoppers()
    owners = Aliases(database, log).mapping()
    made = material(model, content, sequences(log, table, aligned, excluded, owners), seed)
    progress(2, 10, "training generators")
    steps = iter(range(3, 9))
    choice = choose(made, names, seed, lambda line: progress(next(steps, 8), 10, line))
    if choice.generator is None:
        return {"outcome": "none is better than the model by itself", **choice.numbers()}
    generator, virtual = _with_virtual(made, choice, bundle, seed)
    progress(9, 10, "putting it into force")
    folder, version = _saved(settings, generator, made, bundle)
    rows = _rows(virtual, made, generator, version, bundle, table) if virtual else []
    if rows:
        GeneratedProducts(database).add(version, seed, rows)
    provenance = {
        "name": generator.name, "version": version, "seed": seed, "model": bundle.label, "virtual products": len(rows),
    }  # fmt: skip
    metrics = choice.numbers() | {"by category": _by_category(made, generator, bundle)}
    candidate = registry.add_candidate(KIND, version, folder, metrics, provenance)
    verdict = AugmentationGate(settings).judge(candidate, registry.live(KIND))
    registry.judged(KIND, version, verdict, "augment")
    found = {"outcome": "refused", "generator": generator.name, "version": version, "reasons": list(verdict.reasons)}
    if not verdict.passed:
        return found | choice.numbers()
    written = _bundle(settings, bundle, spec, weights, made, generator, {**provenance, **choice.numbers()})
    number = written.name.rpartition("-")[2]
    registry.add_candidate(INTEREST, number, written, bundle.description.get("metrics"), {"augmentation": provenance})
    registry.judged(INTEREST, number, helps(choice.lower), "augment", str(bundle.version))
    # It is the model of an hour ago, with a generator: another one may be live by now.
    if kept := registry.promote_unless_pinned(INTEREST, number, "augment", str(bundle.version)):
        registry.judged(INTEREST, number, Verdict(False, (kept,)), "augment", str(bundle.version))
        return found | {"reasons": [kept]} | choice.numbers()
    registry.promote(KIND, version, "augment")
    return found | {"outcome": "live", "bundle": written.name} | choice.numbers()


def sequences(
    log: EventLog, table: ProductTable, aligned: Alignment, excluded: frozenset[str] = frozenset(),
    owners: Mapping[str, str] | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """What each shopper did, int64 (n, 2): product numbers and actions, oldest first, the same product not twice in a
    row; shoppers whose behaviour does not count are left out. ``owners``: ids that were joined to a shopper."""
    parts: dict[str, list[tuple[int, int]]] = {}
    after, owners = (-np.inf, 0), owners or {}
    while True:
        columns = log.lines_by_time(after, 50_000).columns
        if not len(columns):
            return [np.array(one[-MOST_ACTIONS:], dtype=np.int64) for one in parts.values() if len(one) > 1]
        after = (float(columns.times[-1]), int(columns.sequence[-1]))
        rows = kept(columns.shoppers, excluded)
        numbers = aligned.numbers[table.rows_of_short_keys(short_keys(columns.keys[rows]))]
        actions = columns.actions[rows].tolist()
        for place, number, action in zip(rows.tolist(), numbers.tolist(), actions, strict=True):
            if number > aligned.unknown:
                name = columns.shoppers[place]
                mine = parts.setdefault(owners.get(name, name), [])
                if not mine or mine[-1][0] != number:
                    mine.append((number, action))
                if len(mine) > 2 * MOST_ACTIONS:
                    del mine[:-MOST_ACTIONS]


def _live(settings: Settings) -> tuple[Bundle, InterestModel]:
    folder = live_bundle(settings.models_folder)
    if folder is None:
        raise TooLittle("no interest model is live: train one first (endcap train)")
    encoder = text_encoder_at_hand(settings)
    bundle = load_bundle(folder)
    if bundle.spec.content and bundle.spec.encoder != (encoder.id if encoder else ""):
        raise InvalidInput(
            f"the live model reads content vectors of {bundle.spec.encoder}, the text encoder is now "
            f"{encoder.id if encoder else 'none'}: index the products and train the model again"
        )
    return bundle, model_of(bundle)


def _table(settings: Settings) -> ProductTable:
    engine = open_engine(settings)
    try:
        table = ProductTable.collect(engine.scan())
    finally:
        engine.close()
    table.pictures = PictureSource(settings.data_dir / PICTURES)
    return table


def with_pictures(spec: InputSpec, table: ProductTable, learned: Sequence[str]) -> InputSpec:
    """What the generator is to read: pictures, too, where enough of the learned products have one that was encoded."""
    found = table.pictures.of(learned) if table.pictures is not None else None
    share = found.vectors[:-1].any(axis=1).mean() if found is not None and len(learned) else 0.0
    if found is None or share < ENOUGH_PICTURES:
        return replace(spec, pictures=0, picture_encoder="")
    return replace(spec, pictures=WIDTH, picture_encoder=found.encoder)


def _with_virtual(
    made: Material, choice: Choice, bundle: Bundle, seed: int
) -> tuple[Generator, VirtualProducts | None]:
    """The generator, trained again with virtual products in thin categories where that is better on validation."""
    generator = choice.generator
    assert generator is not None
    if "category" not in bundle.spec.codes:
        return generator, None
    virtual = virtual_products(made.warm, generator, bundle.spec.codes.index("category"), seed)
    if not len(virtual):
        return generator, None
    validation = made.validation()
    try:
        again = GENERATORS[generator.name]().fit(enriched(made.warm, virtual), seed, validation)
        value = validation.judge(again.embed(validation.content))
    except (GeneratorDiverged, InvalidInput) as error:
        choice.kept_out["virtual products"] = str(error)
        return generator, None
    choice.validation[f"{generator.name} + virtual products"] = value
    return (again, virtual) if value > choice.validation[generator.name] else (generator, None)


def _rows(
    virtual: VirtualProducts, made: Material, generator: Generator, version: str, bundle: Bundle, table: ProductTable
) -> list[GeneratedProduct]:
    """The virtual products as rows for their store."""
    products, words = bundle.vocabulary.products, bundle.vocabulary.codes

    def name(number: int) -> str:
        return products[number - 2]

    histories: dict[int, list[tuple[str, ...]]] = {}
    for source, product in zip(virtual.sources.tolist(), virtual.interactions.products.tolist(), strict=True):
        before = tuple(name(number) for number in made.befores[source].tolist() if number > 1)
        histories.setdefault(product, []).append((*before, generated_id(version, product)))
    rows = []
    for row in range(len(virtual)):
        values = {
            column: words[column][code - 1]
            for column, code in zip(bundle.spec.codes, virtual.content.codes[row].tolist(), strict=True)
            if code and column in words
        }
        parents = tuple(name(int(made.numbers[parent])) for parent in virtual.parents[row])
        prices = table.price[table.rows(parents)]
        known = prices[prices > 0]
        category = values.pop("category", "").replace("\0", PATH_SEPARATOR)
        price = round(float(np.exp(np.log(known).mean())), 2) if len(known) else None
        attributes = {column: value.replace("\0", PATH_SEPARATOR) for column, value in values.items()}
        plausible = tuple(histories.get(row, ()))
        rows.append(GeneratedProduct(generated_id(version, row), category, price, attributes, parents, plausible))
    return rows


def _saved(settings: Settings, generator: Generator, material: Material, bundle: Bundle) -> tuple[Path, str]:
    """Where the generator's files lie, and its version. Beside it: its graph, and the learned products, to look at."""
    parent = settings.models_folder / "generators"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".new.") as scratch:
        made = Path(scratch) / "generator"
        version = save_generator(generator, made)
        generator_to_onnx(generator, made / GRAPH)
        names = [bundle.vocabulary.products[number - 2] for number in material.numbers.tolist()]
        np.savez(made / LEARNED, products=np.array(names), vectors=material.warm.vectors.astype(np.float16))
        folder = parent / version
        if not folder.exists():
            made.rename(folder)
    return folder, version


def _by_category(made: Material, generator: Generator, bundle: Bundle) -> dict[str, list[float]]:
    """NDCG with the generator and number of cases by leaf category, for those with most cases."""
    if "category" not in bundle.spec.codes:
        return {}
    numbers, cases = made.judged_by
    ndcg = made.judge(generator.embed(made.content.rows(numbers)))
    codes = made.content.codes[cases.targets, bundle.spec.codes.index("category")]
    kinds, count = np.unique(codes[codes > 0], return_counts=True)
    names = bundle.vocabulary.codes["category"]
    return {
        names[kind - 1].replace("\0", PATH_SEPARATOR): [round(float(ndcg[codes == kind].mean()), 4), int(n)]
        for kind, n in sorted(zip(kinds.tolist(), count.tolist(), strict=True), key=lambda one: -one[1])[:30]
    }


def _bundle(
    settings: Settings, bundle: Bundle, spec: InputSpec, weights: bytes, made: Material, generator: Generator,
    provenance: Mapping[str, Any],
) -> Path:  # fmt: skip
    """The live model with the generator in its graph."""
    model = made.model
    faded = blend(model, generator, made.content, made.counts)
    attach(model, generator)
    with tempfile.TemporaryDirectory() as scratch:
        to_onnx(model, Path(scratch) / "model.onnx")
        graph = (Path(scratch) / "model.onnx").read_bytes()
    spec = replace(spec, inputs=inputs_of(graph))
    described = bundle.description
    return write_bundle(
        settings.models_folder, graph, spec, bundle.vocabulary, name=bundle.name, version=_next(bundle),
        metrics=described.get("metrics"), data_window=described.get("data_window"), seed=described.get("seed"),
        extra={key: value for key, value in described.items() if key not in _MADE_ANEW}
        | {"augmentation": {**provenance, "products of little evidence": faded}},
        affinity=bundle.affinity, calibration=bundle.calibration, weights=weights,
    )  # fmt: skip


def _next(bundle: Bundle) -> int:
    return max(bundle.version + 1, int(time.strftime("%Y%m%d%H%M%S", time.gmtime())))
