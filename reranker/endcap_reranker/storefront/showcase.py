"""Whom and what the storefront shows: written by whoever set up the shop, read by every server process."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from endcap.files import write_atomically

FILE = "storefront.json"


@dataclass(frozen=True, slots=True)
class ShopperCard:
    """A shopper who can be chosen. ``line`` says in a few words what he buys."""

    id: str
    name: str
    line: str
    purchases: int = 0


@dataclass(frozen=True, slots=True)
class Showcase:
    """``featured`` are ids of the shoppers shown first; ``queries`` the examples under the search box; ``photos`` those
    of a search by photo, as paths below the shop's folder of pictures."""

    title: str
    shoppers: tuple[ShopperCard, ...] = ()
    featured: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()
    note: str = ""
    photos: tuple[str, ...] = ()
    by_id: dict[str, ShopperCard] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.by_id.update((card.id, card) for card in self.shoppers)


def save_showcase(showcase: Showcase, data_dir: Path) -> None:
    """Write it in one step: a reader sees the old one or the new one."""
    content = {key: value for key, value in asdict(showcase).items() if key != "by_id"}
    write_atomically(data_dir / FILE, orjson.dumps(content))


def load_showcase(data_dir: Path) -> Showcase | None:
    """What was saved; None where this shop has no storefront."""
    try:
        content = orjson.loads((data_dir / FILE).read_bytes())
    except FileNotFoundError:
        return None
    return Showcase(
        title=content["title"],
        shoppers=tuple(ShopperCard(**card) for card in content["shoppers"]),
        featured=tuple(content["featured"]),
        queries=tuple(content["queries"]),
        note=content.get("note", ""),
        photos=tuple(content.get("photos", ())),
    )
