"""The part of Elasticsearch's Query DSL that storefront clients send, answered by the embedded engine.

A request body becomes tantivy queries (:mod:`.queries`, :mod:`.fulltext`), runs (:mod:`.search`) and leaves as
Elasticsearch would have answered. What is not understood is refused in Elasticsearch's own error shape
(:mod:`.errors`), never ignored: an answer to another question than the one asked is worse than none.
"""
