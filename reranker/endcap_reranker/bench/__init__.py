"""Measurements of the running server; each is printed by ``endcap bench NAME``."""
