"""Endcap: personal search order and recommendations in front of the search engine a shop already runs.

This package is the library that the server (``endcap_reranker``) and the workers (``endcap_workers``) share. It
imports neither of them, and neither torch nor pandas at import time.
"""

__version__ = "0.1.0"
