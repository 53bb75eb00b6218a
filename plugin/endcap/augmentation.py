"""The switch: may products without history be scored by what a generator says of them?

Three things must agree: the setting ``augmentation``, the switch (a file beside the bundles, which every server looks
for once a second), and the live bundle, which has a generator in its graph or none.
"""

from __future__ import annotations

from pathlib import Path

from endcap.bundles import sync_folder, write_through
from endcap.errors import ConfigurationError

#: Is there while somebody has switched augmentation off.
OFF = "augmentation.off"


def is_switched_on(models: Path) -> bool:
    """Whether nobody has switched it off. ``models``: the folder of the bundles."""
    return not (models / OFF).exists()


def switch(models: Path, on: bool, by: str = "") -> None:
    """Switch it on or off for every server that uses this model folder; saying it twice changes nothing.

    Raises:
        ConfigurationError: the folder cannot be written.
    """
    try:
        models.mkdir(parents=True, exist_ok=True)
        if on:
            (models / OFF).unlink(missing_ok=True)
        else:
            write_through(models / OFF, f"switched off by {by or 'nobody named'}\n".encode())
        sync_folder(models)
    except OSError as error:
        raise ConfigurationError(f"{models / OFF} cannot be written or removed: {error}") from error
