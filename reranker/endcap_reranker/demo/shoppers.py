"""One line on each household, and a dozen that are worth meeting: all computed from what they bought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from endcap.catalog.product import Product
from endcap_reranker.storefront import ShopperCard

if TYPE_CHECKING:
    import pandas as pd

#: What to look for, in this order; each takes the household that stands out most and was not taken before.
THEMES: tuple[tuple[str, ...], ...] = (
    ("Baby Food", "Diapers", "Infant Formula"),
    ("Dog Food",),
    ("Yogurt",),
    ("Frozen Dinners and Entrees", "Frozen Pizza and Snacks"),
    ("Organic Fruit and Vegetables", "Soy and Rice Milk", "Natural Cereal", "Natural Refrigerated Foods"),
    ("Soft Drinks",),
    ("Cat Food", "Cat Litter"),
    ("Coffee", "Milk and Creamers"),
    ("Wine", "Beer", "Imported Wine"),
    ("Cereal", "Breakfast and Snack Bars"),
    ("Chips and Bagged Snacks", "Bagged and Boxed Candy"),
    ("Bread", "Deli Meats", "Deli Cheese"),
)
_SHORT = {
    "Bagged and Boxed Candy": "candy",
    "Breakfast and Snack Bars": "snack bars",
    "Deli Salads and Dips": "deli salads",
    "Fitness and Diet": "energy bars",
    "Mexican, Asian and World Foods": "Mexican and Asian food",
    "Natural Refrigerated Foods": "organic milk and tofu",
    "Organic Fruit and Vegetables": "organic produce",
    "Refrigerated Foods": "chilled food",
    "Diet and Nutrition": "diet shakes",
}
_PROPER = {"Mexican", "Christmas", "Easter"}
#: Purchases that a household in the list has at least, and purchases of a category that a line may rest on.
MIN_PURCHASES = 400
MIN_CATEGORY = 12


def describe_households(products: Sequence[Product], purchases: pd.DataFrame) -> tuple[list[ShopperCard], list[str]]:
    """A card for every household (most purchases first), and the ids of those to show first."""
    import pandas as pd

    category = {one.id: one.categories[min(1, len(one.categories) - 1)] for one in products if one.categories}
    own_label = {one.id for one in products if one.attributes.get("label") == "Store brand"}
    known = purchases[purchases["product"].isin(category)]
    if known.empty:
        return [], []
    table = pd.crosstab(known["household"], known["product"].map(category))
    own = known["product"].isin(own_label).groupby(known["household"]).mean()
    counts, names = table.to_numpy(dtype=float), list(table.columns)
    total = counts.sum(axis=1, keepdims=True)
    usual = counts.sum(axis=0, keepdims=True) / counts.sum()
    # How much more of its shopping goes there than usual, weighed by how much that is.
    standing_out = np.where(counts >= MIN_CATEGORY, (counts / total) * np.log((counts / total + 1e-9) / usual), 0.0)
    cards = [
        ShopperCard(
            id=household,
            name=household.replace("household-", "Household "),
            line=_line(standing_out[row], names, float(own[household])),
            purchases=int(total[row, 0]),
        )
        for row, household in enumerate(table.index)
    ]
    chosen = _choose(standing_out, names, total[:, 0])
    featured = [cards[row].id for row in chosen]
    return sorted(cards, key=lambda card: (-card.purchases, card.id)), featured


def _line(standing_out: np.ndarray, names: Sequence[str], own_label: float) -> str:
    best = [names[place] for place in np.argsort(-standing_out, kind="stable")[:6] if standing_out[place] > 0]
    parts = list(dict.fromkeys(_short(one) for one in best))[:2]
    if own_label > 0.35:
        parts.append("store brand")
    elif own_label < 0.12:
        parts.append("national brands")
    return f"Buys {', '.join(parts)}" if parts else "Buys a bit of everything"


def _short(category: str) -> str:
    """A category in the middle of a sentence."""
    text = _SHORT.get(category) or category.partition(" and ")[0].partition(",")[0]
    return text if text.split()[0] in _PROPER else text.lower()


def _choose(standing_out: np.ndarray, names: Sequence[str], total: np.ndarray) -> list[int]:
    """For each theme the household whose shopping is most about it."""
    chosen: list[int] = []
    enough = total >= min(MIN_PURCHASES, float(np.median(total)))
    for theme in THEMES:
        score = standing_out[:, [names.index(one) for one in theme if one in names]].sum(axis=1)
        score[~enough] = 0.0
        score[chosen] = 0.0
        if score.max(initial=0.0) > 0:
            chosen.append(int(score.argmax()))
    return chosen
