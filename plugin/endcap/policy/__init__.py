"""How a ranking is made: ranking profiles, the policies that choose between them, and business rules on top."""

from endcap.policy.base import Choice, Exploration, Policy, draw_of
from endcap.policy.blend import DEFAULT_BLENDS, INTEREST, Blend, blended
from endcap.policy.context import NO_VISIT, Context, Visit, context_of, device_of, vectors
from endcap.policy.fixed import FixedPolicy, SoftmaxPolicy

__all__ = [
    "DEFAULT_BLENDS",
    "INTEREST",
    "NO_VISIT",
    "Blend",
    "Choice",
    "Context",
    "Exploration",
    "FixedPolicy",
    "Policy",
    "SoftmaxPolicy",
    "Visit",
    "blended",
    "context_of",
    "device_of",
    "draw_of",
    "vectors",
]
