"""Profiles of very many shoppers: those who act now as they are, the others as a few bytes each."""

from __future__ import annotations

from collections import OrderedDict

from endcap.profiles import Profile

#: Profiles that are kept as they are.
_AT_HAND = 50_000


class PackedProfiles:
    """A shopper of four actions takes some 250 bytes, his name included; as an object he would take three times that.

    A profile that was taken may be changed until ``most`` others have been taken after it.
    """

    def __init__(self, places: int, recent: int, half_life_days: float, most: int = _AT_HAND) -> None:
        self._made_of = places, recent, half_life_days
        self._most = most
        self._at_hand: OrderedDict[str, Profile] = OrderedDict()
        self._packed: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._at_hand) + len(self._packed)

    def take(self, shopper: str) -> Profile:
        """His profile; a new one, which is kept, where there is none."""
        profile = self._at_hand.get(shopper)
        if profile is not None:
            self._at_hand.move_to_end(shopper)
            return profile
        packed = self._packed.pop(shopper, None)
        profile = Profile.from_bytes(packed, *self._made_of) if packed else Profile(*self._made_of)
        self._at_hand[shopper] = profile
        if len(self._at_hand) > self._most:
            idle, old = self._at_hand.popitem(last=False)
            self._packed[idle] = old.to_bytes()
        return profile

    def look(self, shopper: str) -> Profile:
        """The same, to read only: where there is none, an empty one that is not kept."""
        known = shopper in self._at_hand or shopper in self._packed
        return self.take(shopper) if known else Profile(*self._made_of)
