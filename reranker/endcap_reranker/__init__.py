"""Endcap's Flask application: the hook, the search and event API, the storefront demo."""
