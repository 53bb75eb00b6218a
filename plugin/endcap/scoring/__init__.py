"""Scorers behind one protocol: ``baseline`` now; in-process ONNX and Triton models are others."""

from endcap.scoring.base import Scorer

__all__ = ["Scorer"]
