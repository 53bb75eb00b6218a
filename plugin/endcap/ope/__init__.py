"""Off-policy evaluation: what a ranking policy would have earned, from decisions that another one logged.

>>> log = LoggedChoices.of(reward=[0, 1, 0, 1], propensity=[0.5] * 4, target=[0, 1, 0, 1])
>>> ips(log).value
1.0
"""

from endcap.ope.bounds import bootstrap_lower_bound, effective_sample_size, empirical_bernstein_lower_bound
from endcap.ope.estimators import (
    Terms,
    direct_method,
    doubly_robust,
    dr_shrunk,
    ips,
    self_normalised_dr,
    snips,
    switch_dr,
    tuned,
)
from endcap.ope.log import LoggedChoices
from endcap.ope.slates import LoggedRankings, cascade_ips, independent_ips, slate_ips
from endcap.ope.verdict import Decision, Gate, Judgement, judge

__all__ = [
    "Decision",
    "Gate",
    "Judgement",
    "LoggedChoices",
    "LoggedRankings",
    "Terms",
    "bootstrap_lower_bound",
    "cascade_ips",
    "direct_method",
    "doubly_robust",
    "dr_shrunk",
    "effective_sample_size",
    "empirical_bernstein_lower_bound",
    "independent_ips",
    "ips",
    "judge",
    "self_normalised_dr",
    "slate_ips",
    "snips",
    "switch_dr",
    "tuned",
]
