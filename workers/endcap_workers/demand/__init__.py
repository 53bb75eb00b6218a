"""Demand: histories out of sales, forecasts with intervals, rolling-origin backtests, and what to keep in stock."""

from endcap_workers.demand.base import Forecast, Forecaster
from endcap_workers.demand.intervals import with_intervals
from endcap_workers.demand.stock import StockAdvice, StockPolicy, advise

__all__ = ["Forecast", "Forecaster", "StockAdvice", "StockPolicy", "advise", "with_intervals"]
