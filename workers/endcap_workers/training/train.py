"""From the event log to a bundle: ``endcap train``, the job ``train`` and the job ``update`` are this function."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import torch.distributed as distributed

from endcap.bundles import AFFINITY, Bundle, inputs_of, load_bundle, write_bundle
from endcap.catalog import Product
from endcap.catalog.table import ProductTable
from endcap.errors import ConfigurationError, TooLittle, UnknownIndex
from endcap.features import FEATURES
from endcap.features.affinity import Affinity
from endcap.files import write_atomically
from endcap.popularity import Popularity
from endcap.runtime import Runtime, open_runtime
from endcap.sequences import CODES, Alignment, InputSpec, Vocabulary
from endcap.settings import Settings
from endcap_workers.models import MODELS, InterestModel, ModelSpec
from endcap_workers.training.cases import TEST, TRAIN, VALID, Cases, CaseWriter
from endcap_workers.training.export import to_onnx
from endcap_workers.training.impressions import ENOUGH, Impressions, impressions
from endcap_workers.training.learning import best_device, calibrate, learn, processes, score
from endcap_workers.training.lists import Lists
from endcap_workers.training.loop import Schedule
from endcap_workers.training.losses import LOSSES
from endcap_workers.training.plan import Plan, make_plan
from endcap_workers.training.replay import Progress, Replay
from endcap_workers.training.segments import calibration_error, segments
from endcap_workers.training.weights import model_of, weights_of

#: Products with a number of their own were done something with at least so often.
FEWEST_ACTIONS = 5
MOST_NUMBERS = 500_000
_REQUEST, _VOCABULARY, _PRODUCTS = "request.json", "vocabulary.json", "products.json"
#: What becomes of a purchase, roughly: lists for each.
_LISTS_PER_WANTED = 0.8

SCHEDULE = Schedule(epochs=4, patience=2, rate=3e-3, weight_decay=1e-4, warmup=50, cosine=True, average=0.99, clip=2.0)
UPDATE = replace(SCHEDULE, epochs=2, patience=0, rate=5e-4)


@dataclass(frozen=True, slots=True)
class Request:
    """What to train.

    Attributes:
        model: of ``MODELS``. days: how far back cases reach. lists: how many train, at most.
        base: folder of a bundle whose weights are gone on from; its model and vocabulary stay. None: from nothing.
        parts: of an ``interest`` model. loss: of ``LOSSES``.
        enough: with fewer logged pages that something was wanted of, lists are what the engine finds.
    """

    model: str = "interest"
    seed: int = 0
    days: float = 120.0
    lists: int = 60_000
    epochs: int = 0
    base: str = ""
    parts: tuple[str, ...] = ("features",)
    enough: int = ENOUGH
    loss: str = "listwise"


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run: the bundle's folder, and plain JSON about it."""

    folder: Path
    metrics: dict[str, float]
    window: dict[str, Any]
    segments: dict[str, dict[str, float]]
    seconds: float


def train(
    settings: Settings,
    request: Request,
    folder: Path,
    progress: Progress = lambda *_: None,
    report: Callable[[str], None] = lambda line: None,
) -> Trained | None:
    """Train on what the log holds and write a bundle into the model folder. None in all but the first of several
    processes (torchrun).

    Args:
        folder: for cases and checkpoints; a run that was killed goes on there if it is asked for the same again.

    Raises:
        TooLittle: the log does not hold enough.
        BundleRefused: the bundle could not be written; nothing was left behind.
        ConfigurationError: the request cannot be met.
        LogUnavailable, EngineError: as the parts report them.
    """
    if request.model not in MODELS:
        raise ConfigurationError(f"model {request.model!r}: there are {', '.join(MODELS)}")
    if request.loss not in LOSSES:
        raise ConfigurationError(f"loss {request.loss!r}: there are {', '.join(LOSSES)}")
    began = time.monotonic()
    with processes() as (rank, world):
        if rank:
            progress, report = _silent, _silent
        runtime = open_runtime(settings, start=False)
        try:
            base = load_bundle(Path(request.base)) if request.base else None
            table = _make_cases(runtime, request, _seen(base), folder, progress, report) if rank == 0 else None
            if world > 1:
                distributed.barrier()
            if table is None:
                table = _table(runtime, orjson.loads((folder / _PRODUCTS).read_bytes()))
            made = _fit(runtime, table, request, base, folder, progress, report, write=rank == 0)
        finally:
            runtime.close()
    if made is None:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    return replace(made, seconds=time.monotonic() - began)


def _silent(*_: object) -> None:
    """One of several processes speaks."""


def _table(runtime: Runtime, order: Sequence[str] = ()) -> ProductTable:
    """The products as the engine lists them; ``order``: these, in this order, as cases on the disk name them: what was
    changed meanwhile is listed elsewhere by now."""
    batches = runtime.engine.scan()
    try:
        if order:
            found = {product.id: (product, vector) for batch in batches for product, vector in batch}
            batches = iter([[found.get(one, (Product(one), None)) for one in order]])
        table = ProductTable.collect(batches)
    except UnknownIndex as error:
        raise TooLittle(f"there are no products to train on: {error}") from error
    if len(table) < 2:
        raise TooLittle(f"the shop has {len(table)} product{'s' * (len(table) != 1)}: nothing can be ranked")
    return table


def _seen(base: Bundle | None) -> float:
    """The moment until which a bundle was trained; 0 where there is none, or it does not say."""
    try:
        return float(base.description["data_window"]["moments"]["valid"]) if base is not None else 0.0
    except (KeyError, TypeError, ValueError):
        return 0.0


def _make_cases(
    runtime: Runtime, request: Request, seen: float, folder: Path, progress: Progress, report: Callable[[str], None]
) -> ProductTable | None:
    """Cases, the affinity as of now, the vocabulary and the products' order, in ``folder``; gives the products. None
    where all of that is there."""
    table = _table(runtime)
    encoder = runtime.encoder.id if runtime.encoder is not None else ""
    wanted = orjson.dumps(
        asdict(request) | {"features": list(FEATURES), "products": len(table), "encoder": encoder}
    )  # fmt: skip
    try:
        if (folder / _REQUEST).read_bytes() == wanted:
            Cases(folder / "cases")
            report("goes on with the cases of the run before")
            return None
    except (OSError, ValueError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan = make_plan(runtime.log, request.days, seen=seen)
    excluded = runtime.flags.excluded_shoppers()
    most = (request.lists, max(request.lists // 8, 1_000), max(request.lists // 8, 1_000))
    pages, wanted_of = impressions(
        runtime.database, plan, most, excluded, request.seed, request.enough, progress
    )  # fmt: skip
    shares = _shares(plan, most, pages)
    popularity = Popularity(runtime.settings.popularity_half_life_days)
    lists = Lists(table, popularity, runtime.engine, min(runtime.settings.window, 200), runtime.encoder)
    replay = Replay(
        table, runtime.settings, plan, lists, popularity, shares, excluded, request.seed,
        logins=runtime.aliases.logins(), impressions=pages,
    )  # fmt: skip
    try:
        with CaseWriter(folder / "cases", replay.places) as writer:
            found = replay.run(runtime.log, writer.add, progress)
        if writer.counts[TRAIN] < 10 or writer.counts[VALID] + writer.counts[TEST] < 2:
            raise TooLittle(
                f"only {sum(writer.counts)} lists could be made of the log: too few events are of products that the "
                "shop still has, in categories with more than one"
            )
        content = found.affinity.to_bytes() if found.affinity else b""
        write_atomically(folder / AFFINITY, content, durable=True)
        vocabulary = _vocabulary(table, request, found.actions).to_json()
        write_atomically(folder / _VOCABULARY, orjson.dumps(vocabulary), durable=True)
        write_atomically(folder / _PRODUCTS, orjson.dumps(table.ids), durable=True)
        about = {
            "window": {**plan.window(), "sequence": found.sequence, "events": found.events},
            "lists": writer.counts,
            "shown": pages.counts if pages is not None else [0, 0, 0],
            "examination": pages.examination.propensity[:10].round(3).tolist() if pages is not None else [],
            "moments": {"valid": plan.valid, "test": plan.test, "end": plan.end},
        }
        writer.finish(about)
        (folder / _REQUEST).write_bytes(wanted)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigurationError(f"the training cases could not be written to {folder}: {error}") from error
    report(
        f"{found.events:,} events; {writer.counts[TRAIN]:,} lists train, {writer.counts[VALID]:,} validate, "
        f"{writer.counts[TEST]:,} judge"
    )
    report(
        f"{sum(pages.counts):,} of them are pages that were shown"
        if pages is not None
        else f"something was wanted of {wanted_of:,} logged pages, too few to learn from ({request.enough:,}): "
        "lists are what the engine finds"
    )
    return table


def _shares(plan: Plan, most: tuple[int, int, int], pages: Impressions | None) -> tuple[float, float, float]:
    """Of the lists that the engine would give for what was wanted: how many of each part become cases."""
    edges, found = (plan.start, plan.valid, plan.test, plan.end), []
    for part, limit in enumerate(most):
        until = edges[part + 1] if pages is None else min(max(pages.begins, edges[part]), edges[part + 1])
        expected = _LISTS_PER_WANTED * plan.expected * (until - edges[part]) / (plan.end - plan.start)
        found.append(min(1.0, max(limit - (pages.counts[part] if pages is not None else 0), 0) / max(expected, 1.0)))
    return found[0], found[1], found[2]


def _fit(
    runtime: Runtime, table: ProductTable, request: Request, base: Bundle | None, folder: Path, progress: Progress,
    report: Callable[[str], None], write: bool,
) -> Trained | None:  # fmt: skip
    cases = Cases(folder / "cases")
    content = (folder / AFFINITY).read_bytes()
    affinity = Affinity.from_bytes(content) if content else None
    torch.manual_seed(request.seed)
    if base is not None:
        name, model, vocabulary, encoder = _go_on(base)
    else:
        name = request.model
        vocabulary = Vocabulary.from_json(orjson.loads((folder / _VOCABULARY).read_bytes()))
        model, encoder = _fresh(runtime, table, request, vocabulary)
    places = int(cases.about["places"])
    draft = InputSpec(FEATURES, places, CODES, model.spec.content, encoder)
    graph = _graph(model, folder)
    spec = replace(draft, inputs=inputs_of(graph))
    aligned = Alignment(table, vocabulary, spec)
    schedule = replace(SCHEDULE if base is None else UPDATE, seed=request.seed)
    if request.epochs:
        schedule = replace(schedule, epochs=request.epochs)
    outcome = learn(
        model, cases, aligned, schedule, folder / "checkpoint.pt", best_device(), report, progress, base is None,
        LOSSES[request.loss],
    )  # fmt: skip
    if not write:
        return None
    progress(0, 1, "judging")
    valid, test = cases.part(VALID, chosen_only=False), cases.part(TEST, chosen_only=False)
    judged = test if len(test) else valid
    calibration = calibrate(score(model, cases, valid if len(valid) else judged, aligned), request.seed)
    scores = score(model, cases, judged, aligned)
    by_segment = segments(cases, judged, scores)
    metrics = {
        "validation ndcg@10": outcome.best,
        "held-out ndcg@10": by_segment.get("all", {}).get("ndcg@10", float("nan")),
        "held-out mrr": by_segment.get("all", {}).get("mrr", float("nan")),
        "calibration error": calibration_error(scores, calibration),
    }
    window = {**cases.about["window"], "moments": cases.about["moments"]}
    searched = int((~cases.lists["chosen"]).sum())
    extra = {
        "model": {"name": name, "spec": model.spec.to_json()},
        "held_out": by_segment,
        "training": {
            "lists": cases.about["lists"], "shown": cases.about["shown"], "examination": cases.about["examination"],
            "loss": request.loss, "epochs": len(outcome.losses), "best_epoch": outcome.best_epoch,
            "losses": outcome.losses, "validation": outcome.values, "minutes": outcome.minutes,
            "lists_without_choice": searched, "base": base.label if base else "",
        },
    }  # fmt: skip
    target = write_bundle(
        runtime.settings.models_folder, _graph(model, folder), spec, vocabulary, metrics=metrics, data_window=window,
        seed=request.seed, extra=orjson.loads(orjson.dumps(extra)), affinity=affinity, calibration=calibration,
        weights=weights_of(model),
    )  # fmt: skip
    report(f"{target.name}: held-out NDCG@10 {metrics['held-out ndcg@10']:.4f}")
    return Trained(target, metrics, window, by_segment, 0.0)


def _vocabulary(table: ProductTable, request: Request, actions: np.ndarray) -> Vocabulary:
    often = np.flatnonzero(actions[:-1] >= FEWEST_ACTIONS)
    often = often[np.argsort(-actions[often], kind="stable")[:MOST_NUMBERS]]
    return Vocabulary.of(table, [table.ids[row] for row in np.sort(often).tolist()] if _reads_products(request) else [])


def _reads_products(request: Request) -> bool:
    return request.model != "interest" or set(request.parts) != {"features"}


def _fresh(
    runtime: Runtime, table: ProductTable, request: Request, vocabulary: Vocabulary
) -> tuple[InterestModel, str]:
    encoder = runtime.encoder.id if runtime.encoder is not None else ""
    dims = table.vectors.shape[1] if table.vectors is not None and encoder and _reads_products(request) else 0
    spec = ModelSpec(
        products=vocabulary.numbers,
        codes=vocabulary.sizes(CODES),
        content=dims,
        features=len(FEATURES),
        width=32,
        hidden=(256, 128),
        id_dropout=0.3,
        among=True,
        parts=request.parts,
    )
    return MODELS[request.model](spec), encoder if dims else ""


def _go_on(base: Bundle) -> tuple[str, InterestModel, Vocabulary, str]:
    model = model_of(base)
    return str(base.description["model"]["name"]), model, base.vocabulary, base.spec.encoder


def _graph(model: InterestModel, folder: Path) -> bytes:
    path = folder / "graph.onnx"
    to_onnx(model, path)
    return path.read_bytes()
