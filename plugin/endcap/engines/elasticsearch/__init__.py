"""Products in an Elasticsearch cluster (8.18 or newer, any licence)."""

from endcap.engines.elasticsearch.engine import ElasticsearchEngine

__all__ = ["ElasticsearchEngine"]
