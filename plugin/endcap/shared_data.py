"""Where the public data sets lie that may not be shipped with Endcap."""

from __future__ import annotations

import os
from pathlib import Path

from endcap.errors import ConfigurationError

VARIABLE = "ENDCAP_SHARED_DATA"


def shared_file(*parts: str) -> Path:
    """A file of the data folder: ``ENDCAP_SHARED_DATA``, by default ``shared/data`` beside the checkout.

    Raises:
        ConfigurationError: it is not there.
    """
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get(VARIABLE, beside)).joinpath(*parts)
    if not path.exists():
        raise ConfigurationError(f"{path} is missing: set {VARIABLE} to the folder with the data sets")
    return path
