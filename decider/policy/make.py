"""PolicySpec (and what was learned) -> Policy; and stored models, refused unless they match."""

from __future__ import annotations

from hashlib import sha256

from decider.errors import ModelMismatch
from decider.policy.protocol import Policy
from decider.policy.saved import SavedModel
from decider.policy.spec import PolicySpec
from decider.policy.static import Uniform
from decider.policy.thompson.thompson import ThompsonPolicy
from decider.policy.vw.workspace import VwPolicy


def make_policy(spec: PolicySpec, saved: bytes | None = None) -> Policy:
    """A fresh policy, or one that continues from `Policy.save()`."""
    if not spec.learns:
        return Uniform()
    if spec.algorithm == "thompson":
        return _thompson(spec, saved)
    return VwPolicy(spec.arguments, reward_range=spec.reward_range, saved=saved)


def _thompson(spec: PolicySpec, saved: bytes | None) -> ThompsonPolicy:
    return ThompsonPolicy(
        width=spec.parameters["width"],
        memory=spec.parameters["memory"],
        draws=int(spec.parameters["draws"]),
        pairs="CCA" in spec.interactions,
        reward_range=spec.reward_range,
        saved=saved,
    )


def save_model(spec: PolicySpec, policy: Policy) -> SavedModel:
    """What `policy` has learned, with checksum and signature."""
    data = policy.save()
    return SavedModel(spec.signature, sha256(data).hexdigest(), data)


def load_model(spec: PolicySpec, saved: SavedModel) -> Policy:
    """The policy that was saved. Raises ModelMismatch if it is damaged or was made by another spec."""
    if saved.signature != spec.signature:
        raise ModelMismatch(f"the stored model was made by [{saved.signature}], not by [{spec.signature}]")
    if sha256(saved.data).hexdigest() != saved.checksum:
        raise ModelMismatch(f"the stored model of {len(saved.data)} bytes does not match its checksum: it is damaged")
    return make_policy(spec, saved.data)
