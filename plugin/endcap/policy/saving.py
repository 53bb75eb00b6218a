"""Policies as files: one JSON document, read back only where every number in it makes sense."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from endcap.errors import BundleRefused, InvalidInput
from endcap.files import write_atomically
from endcap.policy.base import BasePolicy, Exploration
from endcap.policy.blend import Blend
from endcap.policy.context import COLUMNS
from endcap.policy.fixed import FixedPolicy, SoftmaxPolicy
from endcap.policy.incumbent import IncumbentPolicy
from endcap.policy.linear import LinearPolicy, LinUCB, ThompsonPolicy
from endcap.policy.qlearning import QPolicy

POLICY_FILE = "policy.json"
_LARGEST = 16_000_000
KINDS: Mapping[str, type[BasePolicy]] = {
    one.kind: one for one in (FixedPolicy, IncumbentPolicy, SoftmaxPolicy, LinUCB, ThompsonPolicy, QPolicy)
}


def policy_from_json(stored: Any) -> BasePolicy:
    """The policy of :meth:`~endcap.policy.base.Policy.as_json`.

    Raises:
        InvalidInput: it is none, or was learnt with other context columns than this version has.
    """
    if not isinstance(stored, Mapping) or stored.get("kind") not in KINDS:
        kind = stored.get("kind") if isinstance(stored, Mapping) else stored
        raise InvalidInput(f"policy: kind must be one of {', '.join(KINDS)}, not {kind!r:.60}")
    made = KINDS[stored["kind"]]
    if not isinstance(stored.get("arms"), list):
        raise InvalidInput("policy: arms must be a list of ranking profiles")
    arms = tuple(Blend.from_json(one) for one in stored["arms"])
    exploration = Exploration.from_json(stored.get("exploration", {}))
    version = str(stored.get("version", ""))
    if "columns" in stored and list(stored["columns"]) != list(COLUMNS):
        raise InvalidInput("policy: it was learnt with other context columns; learn it anew with this version")
    try:
        if issubclass(made, LinearPolicy):
            return made(
                arms, np.array(stored["mean"]), np.array(stored["spread"]), stored["noise"], exploration, version
            )
        if made is IncumbentPolicy:
            means, deviations = np.array(stored["means"]), np.array(stored["deviations"])
            return IncumbentPolicy(arms, stored["incumbent"], means, deviations, exploration, version)
        if made is QPolicy:
            return QPolicy(arms, np.array(stored["coefficients"]), stored["temperature"], exploration, version)
        if made is SoftmaxPolicy:
            temperature = float(stored["temperature"] if stored["temperature"] is not None else math.inf)
            return SoftmaxPolicy(arms, np.array(stored["means"]), temperature, exploration, version)
        return FixedPolicy(arms, exploration, version)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"policy: {stored['kind']} cannot be read: {error!r}") from None


def save_policy(policy: BasePolicy, folder: Path) -> Path:
    """Write ``policy.json`` into a folder, whole or not at all; gives the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / POLICY_FILE
    content = orjson.dumps(policy.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
    write_atomically(file, content, durable=True)
    return file


def load_policy(folder: Path) -> BasePolicy:
    """The policy of a folder.

    Raises:
        BundleRefused: there is none, or it cannot be used.
    """
    file = folder / POLICY_FILE
    try:
        if file.stat().st_size > _LARGEST:
            raise BundleRefused(f"{file.name} is larger than a policy can be")
        return policy_from_json(orjson.loads(file.read_bytes()))
    except OSError as error:
        raise BundleRefused(f"the policy in {folder.name} cannot be read: {error.strerror or error}") from None
    except orjson.JSONDecodeError as error:
        raise BundleRefused(f"the policy in {folder.name} is not JSON: {error}") from None
    except InvalidInput as error:
        raise BundleRefused(f"the policy in {folder.name} cannot be used: {error}") from None
