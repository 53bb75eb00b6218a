"""Where the public data sets lie; the demo asks in the same place."""

from endcap.shared_data import VARIABLE, shared_file

__all__ = ["VARIABLE", "shared_file"]
