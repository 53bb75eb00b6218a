"""The embedded engine: full text by tantivy, vectors by numpy and usearch, in process and on disk."""

from endcap.engines.embedded.engine import EmbeddedEngine

__all__ = ["EmbeddedEngine"]
