"""Features of (shopper, product) pairs as of a moment, for many lists at once: the material of the Interest model.

Everything is computed from the actions strictly before the moment. What goes in is what a shop's log and catalogue
hold: shopper, product, time, visit, price, and for each product its type, category, maker, label and size; the store
is optional (a shop without branches gives one number for all).
"""

from endcap_workers.training.behaviour.crowd import crowd_features
from endcap_workers.training.behaviour.log import Columns, Lists, Log, Past, Products
from endcap_workers.training.behaviour.own import own_features
from endcap_workers.training.behaviour.taste import taste_features

__all__ = ["Columns", "Lists", "Log", "Past", "Products", "list_features"]


def list_features(past: Past, lists: Lists, groups: tuple[str, ...] = ("own", "taste", "crowd")) -> Columns:
    """float16 columns over the rows of ``lists``; ``groups`` leaves parts out (ablation)."""
    columns = Columns(lists)
    for name, make in (("own", own_features), ("taste", taste_features), ("crowd", crowd_features)):
        if name in groups:
            make(past, lists, columns)
    return columns
