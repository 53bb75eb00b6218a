"""What a product is, how rows of a shop become products, and the columnar snapshot that ranking reads."""

from endcap.catalog.product import ROLES, Product
from endcap.catalog.table import ProductTable

__all__ = ["ROLES", "Product", "ProductTable"]
