from __future__ import annotations

import numpy as np

from endcap.events import Action
from endcap.profiles import Profile
from endcap_workers.training.packed import PackedProfiles

NOW = 1_750_000_000.0


def act(profile: Profile, key: int) -> None:
    profile.add(np.array([key], np.uint64), np.array([NOW]), np.array([Action.PURCHASE], np.uint8))


def test_profiles_that_were_packed_go_on_as_they_were() -> None:
    packed, plain = PackedProfiles(1_000, 10, 30.0, most=3), [Profile(1_000, 10, 30.0) for _ in range(8)]
    for turn in range(5):
        for number, profile in enumerate(plain):
            for one in (packed.take(f"s{number}"), profile):
                act(one, 10 * turn + number)
    assert len(packed) == 8
    assert len(packed._packed) == 5
    for number, profile in enumerate(plain):
        assert packed.take(f"s{number}").to_bytes() == profile.to_bytes()
        assert packed.look(f"s{number}").half_life_days == 30.0


def test_looking_keeps_nobody() -> None:
    packed = PackedProfiles(1_000, 10, 30.0)
    assert not packed.look("stranger")
    assert len(packed) == 0
