"""Detectors of fraud over feature matrices: one for the time before labels exist, one for the time after."""

from endcap_workers.fraud.base import Detector, Features, Reason
from endcap_workers.fraud.label_free import LabelFreeDetector
from endcap_workers.fraud.supervised import SupervisedDetector

__all__ = ["Detector", "Features", "LabelFreeDetector", "Reason", "SupervisedDetector"]
