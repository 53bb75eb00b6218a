"""Standing in front of an index that Endcap did not make: a copy of its products, kept beside it and up to date."""

from endcap.attach.following import SyncReport, synchronise
from endcap.attach.source import Source, Unit

__all__ = ["Source", "SyncReport", "Unit", "synchronise"]
