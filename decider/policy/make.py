"""PolicySpec (and what was learned) -> Policy; and stored models, refused unless they match. Called by the learner,
`verify` and the simulator.
"""

from __future__ import annotations

from hashlib import sha256

from decider.errors import ModelMismatch, UnknownCode
from decider.policy.algorithms import ALGORITHMS
from decider.policy.protocol import Policy
from decider.policy.saved import SavedModel
from decider.policy.spec import PolicySpec


def make_policy(spec: PolicySpec, saved: bytes | None = None, code: int | None = None) -> Policy:
    """A fresh policy, or one that continues from `Policy.save()`; code: by default the newest learning code.

    Raises UnknownCode for what this build does not have.
    """
    codes = ALGORITHMS[spec.algorithm].codes
    wanted = spec.code if code is None else code
    if wanted not in codes:
        raise UnknownCode(f"made by {spec.algorithm} code {wanted}, which this build does not have")
    return codes[wanted](spec.parameters, spec.interactions, spec.reward_range, saved)


def save_model(spec: PolicySpec, policy: Policy, code: int | None = None) -> SavedModel:
    """What `policy` has learned, with checksum and signature."""
    data = policy.save()
    signature = spec.signature_of(spec.code if code is None else code)
    return SavedModel(signature, sha256(data).hexdigest(), data)


def load_model(spec: PolicySpec, saved: SavedModel, code: int | None = None) -> Policy:
    """The policy that was saved. Raises ModelMismatch if it is damaged or was made by another spec or learning code."""
    signature = spec.signature_of(spec.code if code is None else code)
    if saved.signature != signature:
        raise ModelMismatch(f"the stored model was made by [{saved.signature}], not by [{signature}]")
    if sha256(saved.data).hexdigest() != saved.checksum:
        raise ModelMismatch(f"the stored model of {len(saved.data)} bytes does not match its checksum: it is damaged")
    return make_policy(spec, saved.data, code)
