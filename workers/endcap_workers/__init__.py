"""Endcap's work behind the scenes: training, evaluation and, on schedule, reports."""
