"""The demo's storefront page: one search in the engine's order and in the shopper's, side by side."""

from endcap_reranker.storefront.blueprint import create_storefront
from endcap_reranker.storefront.showcase import ShopperCard, Showcase, load_showcase, save_showcase

__all__ = ["ShopperCard", "Showcase", "create_storefront", "load_showcase", "save_showcase"]
