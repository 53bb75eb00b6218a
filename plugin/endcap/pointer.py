"""Reading ``live.json``, the pointer at the bundle in force, for those whom a broken one must not stop."""

from __future__ import annotations

from pathlib import Path

from endcap.bundles import DESCRIPTION, Bundle, live_bundle, load_bundle
from endcap.errors import BundleRefused


def written(folder: Path | None) -> tuple[str, float]:
    """Changes when the pointer does, and when what it names is replaced."""
    try:
        return ("", 0.0) if folder is None else (folder.name, (folder / DESCRIPTION).stat().st_mtime)
    except OSError:
        return str(folder), 0.0


def pointed_at(models: Path) -> str:
    """The name of the bundle in force; empty where there is none, or the pointer cannot be read."""
    try:
        folder = live_bundle(models)
    except BundleRefused:
        return ""
    return folder.name if folder is not None else ""


def bundle_in_force(models: Path) -> Bundle | None:
    """The bundle in force; None where there is none, or it cannot be used."""
    try:
        folder = live_bundle(models)
        return None if folder is None else load_bundle(folder)
    except BundleRefused:
        return None
