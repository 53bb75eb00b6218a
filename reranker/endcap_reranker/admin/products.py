"""The catalogue: products added or replaced one request at a time. For whole files there is `endcap index`."""

from __future__ import annotations

import threading
import time
from typing import Any

from pydantic import Field

from endcap.catalog.product import Product
from endcap.indexing import index_products
from endcap.runtime import Runtime
from endcap_reranker.admin.operation import Answer, Strict, Topic

#: Products in one request.
MOST = 500


class ProductBody(Strict):
    """A product. Only `id` is required."""

    id: str = Field(min_length=1, max_length=512)
    title: str = Field("", max_length=1_000)
    description: str = Field("", max_length=50_000)
    brand: str = Field("", max_length=200)
    categories: list[str] = Field(default_factory=list, max_length=12, description="From the root to the leaf.")
    price: float | None = Field(None, ge=0, allow_inf_nan=False)
    stock: float | None = Field(None, allow_inf_nan=False)
    image: str = Field("", max_length=2_000)
    url: str = Field("", max_length=2_000)
    attributes: dict[str, str | float | bool | list[str]] = Field(default_factory=dict, max_length=100)


class ProductsBody(Strict):
    """Products to add, or to replace by their ids."""

    products: list[ProductBody] = Field(min_length=1, max_length=MOST)


class Refused(Answer):
    """A product that was not taken."""

    id: str
    reason: str


class ProductsAnswer(Answer):
    """What became of the products. They can be found, and are ranked, when this comes."""

    indexed: int = Field(description="New, or with another text.")
    updated: int = Field(description="With other fields.")
    unchanged: int
    refused: list[Refused]
    milliseconds: float
    scored_by: str = Field(
        description="What ranks products that the live model has not learned: `generator`, or `model` where it has no "
        "generator or that is switched off: then by their codes and content as the model reads them."
    )


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("products", "The catalogue.")
    # One at a time: two requests with the same id must not overtake each other.
    lock = threading.Lock()

    @topic.operation(
        "POST", "/products", role="operator", summary="Add or replace products.", body=ProductsBody,
        answer=ProductsAnswer, errors=(409,),
    )  # fmt: skip
    def add_products(body: ProductsBody) -> ProductsAnswer:
        """A product is searchable, and ranked by what its brand, category and text say, as soon as this answers; other
        server processes follow within `product_refresh_s`. 409 with `Retry-After` while the index is being rebuilt."""
        started = time.perf_counter()
        refused: list[Refused] = []
        with lock:
            summary = index_products(
                [_product(one) for one in body.products],
                runtime.engine,
                runtime.encoder,
                on_refused=lambda product, reason: refused.append(Refused(id=product, reason=reason)),
            )
            runtime.upkeep.reload()
        table = runtime.personalizer.table
        return ProductsAnswer(
            indexed=summary.indexed,
            updated=summary.updated,
            unchanged=summary.unchanged,
            refused=refused,
            milliseconds=(time.perf_counter() - started) * 1000.0,
            scored_by="model" if table is None or runtime.personalizer.newcomers(table) is None else "generator",
        )

    return topic


def _product(body: ProductBody) -> Product:
    values: dict[str, Any] = body.model_dump()
    return Product(**values | {"categories": tuple(body.categories)})
