"""The library and the server start without what only training needs."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "sentence_transformers",
    "transformers",
    "pandas",
    "sklearn",
    "scipy",
    "lightgbm",
    "celery",
    "redis",
    "opentelemetry",
)


@pytest.mark.parametrize("module", ["endcap", "endcap.runtime", "endcap_reranker.app", "endcap.cli"])
def test_it_imports_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
