"""Experiments on shoppers: who sees what, whether it can be believed, and what it says.

All of it is arithmetic on counts; where shoppers' metrics come from is the caller's business.
"""

from endcap.experiments.assignment import Arm, Assignment, Experiment, Layer, Plan, check_change, position
from endcap.experiments.checks import SampleRatio, sample_ratio
from endcap.experiments.cuped import Adjusted, adjust
from endcap.experiments.interleaving import Interleaved, Preference, credit, preference, sign_test, team_draft
from endcap.experiments.power import detectable_effect, shoppers_needed
from endcap.experiments.sample import Sample
from endcap.experiments.sequential import Interval, difference_sequence, mean_sequence
from endcap.experiments.verdict import Comparison, Outcome, Rules, Verdict, judge, judge_interleaving

__all__ = [
    "Adjusted",
    "Arm",
    "Assignment",
    "Comparison",
    "Experiment",
    "Interleaved",
    "Interval",
    "Layer",
    "Outcome",
    "Plan",
    "Preference",
    "Rules",
    "Sample",
    "SampleRatio",
    "Verdict",
    "adjust",
    "check_change",
    "credit",
    "detectable_effect",
    "difference_sequence",
    "judge",
    "judge_interleaving",
    "mean_sequence",
    "position",
    "preference",
    "sample_ratio",
    "shoppers_needed",
    "sign_test",
    "team_draft",
]
