"""What everybody does: popularity and its trend, the shopper's stores, and shoppers and products that go together."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix, diags
from scipy.sparse.linalg import svds

from endcap_workers.training.behaviour.log import Columns, Lists, Past

#: Neighbours that speak for a shopper in a category.
_NEIGHBOURS = 80
_DIMENSIONS = 64


def crowd_features(past: Past, lists: Lists, columns: Columns) -> None:
    """Columns ``pop_*``, ``store_*`` and ``like_*``."""
    _popularity(past, lists, columns)
    _stores(past, lists, columns)
    shelf = _Shelf(past, lists)
    _together(past, lists, columns, shelf)
    _neighbours(past, lists, columns, shelf)
    _latent(past, lists, columns, shelf)


def _popularity(past: Past, lists: Lists, columns: Columns) -> None:
    product, age = lists.product, past.age
    total = past.per_product(np.ones(len(age)))

    def share(weights: np.ndarray) -> np.ndarray:
        sums = past.per_product(weights)
        return np.log(100.0 * (sums + 0.5) / (past.per_type(sums) + 20.0) + 0.1)

    columns.add("pop_total", share(np.ones(len(age)))[product])
    for days in (7, 14, 30, 60, 120):
        columns.add(f"pop_{days}", share(age < days)[product])
    for days in (30, 60, 120):
        columns.add(f"pop_new_{days}", share((age < days) & past.first_time)[product])
    columns.add("pop_count_60", np.log1p(past.per_product(age < 60))[product])
    shoppers = np.bincount(past.pair_product, minlength=len(total))
    columns.add("pop_shoppers", np.log1p(shoppers)[product])
    columns.add("pop_loyalty", np.log((total + 1.0) / (shoppers + 1.0))[product])
    fortnight, month, before = (past.per_product((age >= a) & (age < b)) for a, b in ((0, 14), (14, 42), (42, 98)))
    columns.add("pop_trend", np.log((2.0 * fortnight + 1.0) / (month + 1.0))[product])
    columns.add("pop_trend_before", np.log((2.0 * month + 1.0) / (before + 1.0))[product])
    last, first = np.full(len(total), 400.0), np.zeros(len(total))
    np.minimum.at(last, past.log.product, age)
    np.maximum.at(first, past.log.product, age)
    columns.add("pop_last_sale", np.log1p(last)[product])
    columns.add("pop_shelf_age", np.log1p(first)[product])
    # Of those who had bought it a month ago, how many bought it since; of all of them, and of the fresh ones.
    since = np.bincount(past.pair, age < 31, minlength=len(past.pairs)) > 0
    for name, ever in (("again", age >= 31), ("again_fresh", (age >= 31) & (age < 62))):
        had = np.bincount(past.pair, ever, minlength=len(past.pairs)) > 0
        bought = np.bincount(past.pair_product, had, minlength=len(total))
        again = np.bincount(past.pair_product, had & since, minlength=len(total))
        usual = (past.per_type(again) + 1.0) / (past.per_type(bought) + 10.0)
        columns.add(f"pop_{name}", np.log((again + 10.0 * usual) / (bought + 10.0))[product])
        if name == "again":
            columns.add("list_again", np.log(usual)[product])


class _Shelf:
    """The candidates as columns of dense tables, those of a type beside each other."""

    def __init__(self, past: Past, lists: Lists) -> None:
        types = past.products.type
        products = np.unique(lists.product)
        self.products = products[np.argsort(types[products], kind="stable")]
        self.column = np.full(len(types), -1)
        self.column[self.products] = np.arange(len(self.products))
        self.type = types[self.products]
        self.kept = np.flatnonzero(self.column[past.log.product] >= 0)
        self.of = self.column[past.log.product[self.kept]]

    def table(self, past: Past, rows: np.ndarray, height: int, weights: np.ndarray) -> csc_matrix:
        """Sparse (height, candidates) sums of the kept purchases' weights; ``rows`` of all purchases."""
        cells = (rows[self.kept], self.of)
        return csc_matrix((weights[self.kept].astype(np.float32), cells), shape=(height, len(self.products)))


def _stores(past: Past, lists: Lists, columns: Columns) -> None:
    """How much the candidate sells where this shopper shops, relative to everywhere, his own purchases left out."""
    log, group = past.log, lists.group
    shopper, kind, product = lists.shopper[group], lists.type[group], lists.product
    stores = int(log.store.max(initial=0)) + 1
    visits = past.per_shopper(log.store, np.exp2(-past.age / 60.0))
    where = np.zeros((past.shoppers, stores), dtype=np.float32)
    where[:, : visits.shape[1]] = visits / np.maximum(visits.sum(axis=1, keepdims=True), 1e-9)
    columns.add("list_main_store", where.max(axis=1)[shopper])
    overlap = (where**2).sum(axis=1)[shopper]
    pair = past.find(shopper, product)
    types = past.products.type
    for days in (30, 90, 400):
        recent = (past.age < days).astype(float)
        sold = csr_matrix((recent, (log.store, log.product)), shape=(stores, len(types)))
        by_type = csr_matrix((recent, (log.store, types[log.product])), shape=(stores, int(types.max()) + 1)).toarray()
        own = np.append(past.per_pair(recent), 0.0)[pair]
        own_type = past.per_shopper(types[log.product], recent)[shopper, kind]
        here = np.zeros(len(product), dtype=np.float32)
        for one, rows in _runs(shopper):
            here[rows] = np.asarray(where[one] @ sold).ravel()[product[rows]]
        here = np.maximum(here - own * overlap, 0.0)
        around = np.maximum((where @ by_type)[shopper, kind] - own_type * overlap, 0.0)
        everywhere = past.per_product(recent)
        usual = ((everywhere + 0.3) / (past.per_type(everywhere) + 10.0))[product]
        columns.add(f"store_{days}", np.log((here + 8.0 * usual) / ((around + 8.0) * usual)))
        columns.add(f"store_count_{days}", np.log1p(here))


def _runs(values: np.ndarray) -> list[tuple[int, slice]]:
    """Each run of equal values with its rows (lists come sorted by shopper)."""
    begin = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.empty(0, np.int64)
    return [(int(values[a]), slice(int(a), int(b))) for a, b in zip(begin, np.r_[begin[1:], len(values)], strict=True)]


def _together(past: Past, lists: Lists, columns: Columns, shelf: _Shelf) -> None:
    """Within the type: products bought by the same shoppers, and in the same visits, as those this shopper buys."""
    ever = csc_matrix(shelf.table(past, past.log.shopper, past.shoppers, np.ones(len(past.age))) > 0, dtype=np.float32)
    recent = shelf.table(past, past.log.shopper, past.shoppers, np.exp2(-past.age / 60.0))
    visits, visit = np.unique(past.log.visit, return_inverse=True)
    baskets = shelf.table(past, visit, len(visits), np.ones(len(past.age)))
    values = np.zeros((3, len(lists.product)), dtype=np.float32)
    order = np.argsort(lists.type, kind="stable")
    for kind, chosen in _runs(lists.type[order]):
        rows_of = order[chosen]
        a, b = np.searchsorted(shelf.type, (kind, kind + 1))
        product = lists.product[lists.starts[rows_of[0]] : lists.starts[rows_of[0] + 1]]
        column = shelf.column[product] - a
        who = lists.shopper[rows_of]
        mine, lately = ever[:, a:b].toarray()[who], np.log1p(recent[:, a:b].toarray()[who])
        by_shopper, by_visit = _cosine(ever[:, a:b], 3.0), _cosine(baskets[:, a:b], 5.0)
        rows = (lists.starts[rows_of][:, None] + np.arange(len(product))).ravel()
        for number, (weights, likeness) in enumerate(((mine, by_shopper), (lately, by_shopper), (lately, by_visit))):
            values[number, rows] = (weights @ likeness)[:, column].ravel()
    for name, one in zip(("like_bought", "like_bought_lately", "like_same_visit"), values, strict=True):
        columns.add(name, 3.0 * np.log1p(one))


def _cosine(table: csc_matrix, shrink: float) -> np.ndarray:
    """Likeness of columns, 0 on the diagonal."""
    both = (table.T @ table).toarray()
    norm = np.sqrt(np.diag(both) + shrink)
    likeness = both / norm[:, None] / norm[None]
    np.fill_diagonal(likeness, 0.0)
    return likeness


def _unit_rows(table: csr_matrix, power: float = 1.0, floor: float = 1e-6) -> csr_matrix:
    norm = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    return (diags(((norm + floor) ** -power).astype(np.float32)) @ table).tocsr()


def _memory(past: Past, weights: np.ndarray, fewest: int, power: float) -> csr_matrix:
    """(shoppers, products): what each remembers, rare products weighing more; those of hardly anyone left out."""
    shoppers = np.bincount(past.pair_product, minlength=len(past.products))
    rarity = np.log(past.shoppers / (shoppers + 1.0)).clip(min=0.2) ** power * (shoppers >= fewest)
    values = (weights * rarity[past.pair_product]).astype(np.float32)
    return csr_matrix((values, (past.pair_shopper, past.pair_product)), shape=(past.shoppers, len(past.products)))


def _neighbours(past: Past, lists: Lists, columns: Columns, shelf: _Shelf) -> None:
    """What shoppers buy lately who are like this one in the category, and on the whole."""
    types, categories = past.products.type, past.products.category
    category_of = np.zeros(int(types.max()) + 1, dtype=np.int64)
    category_of[types] = categories
    memory = _unit_rows(_memory(past, np.log1p(past.weight), 2, 1.0))
    overall = (memory @ memory.T).toarray().astype(np.float32)
    np.fill_diagonal(overall, 0.0)
    by_column = memory.tocsc()
    recent = shelf.table(past, past.log.shopper, past.shoppers, np.exp2(-past.age / 30.0))
    recent.data = np.log1p(recent.data)
    level, lift = np.zeros(len(lists.product), np.float32), np.zeros(len(lists.product), np.float32)
    list_category = category_of[lists.type]
    order = np.argsort(list_category, kind="stable")
    for category, chosen in _runs(list_category[order]):
        rows_of = order[chosen]
        table = by_column[:, np.flatnonzero(category_of[types] == category)].tocsr()
        active = np.flatnonzero(np.diff(table.indptr) > 0)
        if not len(active):
            continue
        table = _unit_rows(table[active], floor=0.05)
        shopper, line = np.unique(lists.shopper[rows_of], return_inverse=True)
        near = np.zeros((past.shoppers, len(active)), dtype=np.float32)
        near[active] = (table @ table.T).toarray()
        near[active, np.arange(len(active))] = 0.0
        near = near[shopper] + 1.5 * overall[np.ix_(shopper, active)]
        if len(active) > _NEIGHBOURS:
            near[near < np.partition(near, -_NEIGHBOURS, axis=1)[:, -_NEIGHBOURS][:, None]] = 0.0
        near = near**2
        near /= np.maximum(near.sum(axis=1, keepdims=True), 1e-9)
        members = np.flatnonzero(category_of[shelf.type] == category)
        theirs = recent[:, members].tocsr()[active]
        said, usual = near @ theirs.toarray(), np.asarray(theirs.mean(axis=0)).ravel()
        sizes = np.diff(lists.starts)[rows_of]
        rows = np.concatenate([np.arange(lists.starts[one], lists.starts[one + 1]) for one in rows_of.tolist()])
        column = np.searchsorted(members, shelf.column[lists.product[rows]])
        value, normal = said[np.repeat(line, sizes), column], usual[column]
        level[rows] = np.log(value + 1e-4 + 0.05 * normal)
        lift[rows] = np.log((value + 1e-4 + 0.3 * normal) / (1.3 * normal + 1e-4))
    columns.add("like_neighbours", level)
    columns.add("like_neighbours_lift", lift)


def _latent(past: Past, lists: Lists, columns: Columns, shelf: _Shelf) -> None:
    """Match of the shopper's and the candidate's factors (truncated SVD of who bought what)."""
    memory = _unit_rows(_memory(past, np.log1p(past.count), 3, 0.5), power=0.7)
    rank = min(_DIMENSIONS, min(memory.shape) - 1)
    left, strength, right = svds(memory, k=rank, random_state=0)
    shoppers, products = (left * strength).astype(np.float32), right[:, shelf.products].T.astype(np.float32)
    norm = np.linalg.norm(products, axis=1) + 1e-3
    match = np.zeros(len(lists.product), dtype=np.float32)
    column = shelf.column[lists.product]
    for one, rows in _runs(lists.shopper[lists.group]):
        match[rows] = products[column[rows]] @ shoppers[one]
    columns.add("like_latent", 6.0 * np.sign(match) * np.sqrt(np.abs(match)))
    columns.add("like_latent_cosine", 3.0 * match / norm[column])
