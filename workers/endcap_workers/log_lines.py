"""The event log as columns, for jobs that read all of it once: batch by batch, whatever its length."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import orjson
from sqlalchemy import select

from endcap.catalog.product import product_keys
from endcap.events import Action
from endcap.stores.database import Database
from endcap.stores.events import events


@dataclass(frozen=True, slots=True)
class LogLines:
    """n events in order of arrival; arrays are (n,).

    ``shopper``, ``product``, ``session``, ``device``: uint64 keys, 0 where there is none; ``shoppers``, ``products``,
    ``devices``: the names. ``time``: seconds since 1970; ``action``: uint8; ``quantity``, ``value``: float64;
    ``coupon``: bool. ``sequence``: the number of the last.
    """

    shoppers: list[str]
    products: list[str]
    devices: list[str]
    shopper: np.ndarray
    product: np.ndarray
    session: np.ndarray
    device: np.ndarray
    time: np.ndarray
    action: np.ndarray
    quantity: np.ndarray
    value: np.ndarray
    coupon: np.ndarray
    sequence: int = 0

    def __len__(self) -> int:
        return len(self.shoppers)


def read_log(
    database: Database,
    device_attribute: str = "fingerprint",
    after: int = 0,
    since: float = 0.0,
    actions: Collection[Action] = (),
    batch: int = 50_000,
    owners: Mapping[str, str] | None = None,
) -> Iterator[LogLines]:
    """All events after number ``after`` that are dated ``since`` or later (and have one of ``actions``, if given).

    ``device_attribute``: the event attribute that tells devices apart. A coupon is an attribute ``coupon`` that is
    not empty. ``owners``: ids that were joined to a shopper, whose events then come under his name.

    Raises:
        LogUnavailable: the log cannot be read now.
    """
    columns = events.c
    chosen = select(
        columns.sequence, columns.shopper, columns.product, columns.session, columns.time, columns.action,
        columns.quantity, columns.value, columns.attributes,
    )  # fmt: skip
    if since:
        chosen = chosen.where(columns.time >= since)
    if actions:
        chosen = chosen.where(columns.action.in_([int(one) for one in actions]))
    for rows in database.pages(chosen, batch, after):
        numbers, shoppers, products, sessions, times, acted, quantities, values, attributes = zip(*rows)
        devices, coupons = _attributes(attributes, device_attribute)
        if owners:
            shoppers = tuple(owners.get(name, name) for name in shoppers)
        yield LogLines(
            list(shoppers),
            list(products),
            devices,
            keys_of(shoppers),
            keys_of(products),
            keys_of(sessions),
            keys_of(devices),
            np.array(times, dtype=np.float64),
            np.array(acted, dtype=np.uint8),
            np.array(quantities, dtype=np.float64),
            np.array(values, dtype=np.float64),
            coupons,
            int(numbers[-1]),
        )


def keys_of(names: Collection[str]) -> np.ndarray:
    """uint64 (n,): the key of each name, 0 for an empty one. Names repeat, so each is hashed once."""
    unique = {name: number for number, name in enumerate(dict.fromkeys(names))}
    keys = product_keys(list(unique))
    if "" in unique:
        keys[unique[""]] = 0
    return keys[np.fromiter((unique[name] for name in names), dtype=np.int64, count=len(names))]


def _attributes(attributes: Collection[bytes | None], device_attribute: str) -> tuple[list[str], np.ndarray]:
    devices, coupons = [], np.zeros(len(attributes), dtype=bool)
    for number, content in enumerate(attributes):
        found = orjson.loads(content) if content else {}
        device = found.get(device_attribute)
        devices.append(str(device) if isinstance(device, (str, int)) else "")
        coupons[number] = bool(found.get("coupon"))
    return devices, coupons
