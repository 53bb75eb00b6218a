"""Recommendations: candidates from several generators, merged, ranked by the same scorer as a search."""

from endcap.recommend.discovery import Discovery
from endcap.recommend.recommender import PLACEMENTS, Recommended, Recommender

__all__ = ["PLACEMENTS", "Discovery", "Recommended", "Recommender"]
