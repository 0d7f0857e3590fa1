import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_EXPLOIT: _ClassVar[Reason]
    REASON_EXPLORE: _ClassVar[Reason]
    REASON_HOLDOUT: _ClassVar[Reason]
    REASON_BASELINE: _ClassVar[Reason]
    REASON_FALLBACK: _ClassVar[Reason]
    REASON_ONLY_ELIGIBLE: _ClassVar[Reason]
    REASON_NO_EXPLORATION: _ClassVar[Reason]
    REASON_HOLDOUT_UNAVAILABLE: _ClassVar[Reason]
    REASON_STICKY: _ClassVar[Reason]
    REASON_WITHHELD: _ClassVar[Reason]
    REASON_APPRENTICE: _ClassVar[Reason]

class ActivationOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_OUTCOME_UNSPECIFIED: _ClassVar[ActivationOutcome]
    ACTIVATION_OUTCOME_ACTIVATED: _ClassVar[ActivationOutcome]
    ACTIVATION_OUTCOME_OVERRIDDEN: _ClassVar[ActivationOutcome]
    ACTIVATION_OUTCOME_DUPLICATE: _ClassVar[ActivationOutcome]
    ACTIVATION_OUTCOME_LATE: _ClassVar[ActivationOutcome]
    ACTIVATION_OUTCOME_REMEMBERED: _ClassVar[ActivationOutcome]

class RewardOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REWARD_OUTCOME_UNSPECIFIED: _ClassVar[RewardOutcome]
    REWARD_OUTCOME_JOINED: _ClassVar[RewardOutcome]
    REWARD_OUTCOME_LATE: _ClassVar[RewardOutcome]
    REWARD_OUTCOME_DUPLICATE: _ClassVar[RewardOutcome]
    REWARD_OUTCOME_CLIPPED: _ClassVar[RewardOutcome]
    REWARD_OUTCOME_CORRECTED: _ClassVar[RewardOutcome]
    REWARD_OUTCOME_RETRACTED: _ClassVar[RewardOutcome]
    REWARD_OUTCOME_NO_DECISION: _ClassVar[RewardOutcome]

class LinkOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LINK_OUTCOME_UNSPECIFIED: _ClassVar[LinkOutcome]
    LINK_OUTCOME_LINKED: _ClassVar[LinkOutcome]
    LINK_OUTCOME_DUPLICATE: _ClassVar[LinkOutcome]
REASON_UNSPECIFIED: Reason
REASON_EXPLOIT: Reason
REASON_EXPLORE: Reason
REASON_HOLDOUT: Reason
REASON_BASELINE: Reason
REASON_FALLBACK: Reason
REASON_ONLY_ELIGIBLE: Reason
REASON_NO_EXPLORATION: Reason
REASON_HOLDOUT_UNAVAILABLE: Reason
REASON_STICKY: Reason
REASON_WITHHELD: Reason
REASON_APPRENTICE: Reason
ACTIVATION_OUTCOME_UNSPECIFIED: ActivationOutcome
ACTIVATION_OUTCOME_ACTIVATED: ActivationOutcome
ACTIVATION_OUTCOME_OVERRIDDEN: ActivationOutcome
ACTIVATION_OUTCOME_DUPLICATE: ActivationOutcome
ACTIVATION_OUTCOME_LATE: ActivationOutcome
ACTIVATION_OUTCOME_REMEMBERED: ActivationOutcome
REWARD_OUTCOME_UNSPECIFIED: RewardOutcome
REWARD_OUTCOME_JOINED: RewardOutcome
REWARD_OUTCOME_LATE: RewardOutcome
REWARD_OUTCOME_DUPLICATE: RewardOutcome
REWARD_OUTCOME_CLIPPED: RewardOutcome
REWARD_OUTCOME_CORRECTED: RewardOutcome
REWARD_OUTCOME_RETRACTED: RewardOutcome
REWARD_OUTCOME_NO_DECISION: RewardOutcome
LINK_OUTCOME_UNSPECIFIED: LinkOutcome
LINK_OUTCOME_LINKED: LinkOutcome
LINK_OUTCOME_DUPLICATE: LinkOutcome

class Context(_message.Message):
    __slots__ = ("segment", "device", "channel", "location", "intent_stage", "features")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    INTENT_STAGE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    segment: str
    device: str
    channel: str
    location: str
    intent_stage: str
    features: _struct_pb2.Struct
    def __init__(self, segment: _Optional[str] = ..., device: _Optional[str] = ..., channel: _Optional[str] = ..., location: _Optional[str] = ..., intent_stage: _Optional[str] = ..., features: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class DecideRequest(_message.Message):
    __slots__ = ("experiment", "unit_id", "context", "decision_id", "eligible_actions", "excluded_actions", "action_features", "explore", "with_ranking", "actions", "default_action")
    class ActionFeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Struct
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    UNIT_ID_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FEATURES_FIELD_NUMBER: _ClassVar[int]
    EXPLORE_FIELD_NUMBER: _ClassVar[int]
    WITH_RANKING_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_ACTION_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    unit_id: str
    context: Context
    decision_id: str
    eligible_actions: _containers.RepeatedScalarFieldContainer[str]
    excluded_actions: _containers.RepeatedScalarFieldContainer[str]
    action_features: _containers.MessageMap[str, _struct_pb2.Struct]
    explore: bool
    with_ranking: bool
    actions: _containers.RepeatedCompositeFieldContainer[CalledAction]
    default_action: str
    def __init__(self, experiment: _Optional[str] = ..., unit_id: _Optional[str] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., decision_id: _Optional[str] = ..., eligible_actions: _Optional[_Iterable[str]] = ..., excluded_actions: _Optional[_Iterable[str]] = ..., action_features: _Optional[_Mapping[str, _struct_pb2.Struct]] = ..., explore: _Optional[bool] = ..., with_ranking: _Optional[bool] = ..., actions: _Optional[_Iterable[_Union[CalledAction, _Mapping]]] = ..., default_action: _Optional[str] = ...) -> None: ...

class CalledAction(_message.Message):
    __slots__ = ("id", "kind", "features", "payload")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    features: _struct_pb2.Struct
    payload: _struct_pb2.Struct
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., features: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., payload: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class DecidedAction(_message.Message):
    __slots__ = ("id", "kind", "payload")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    payload: _struct_pb2.Struct
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., payload: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class RankedAction(_message.Message):
    __slots__ = ("action", "propensity")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    action: str
    propensity: float
    def __init__(self, action: _Optional[str] = ..., propensity: _Optional[float] = ...) -> None: ...

class DecideResponse(_message.Message):
    __slots__ = ("decision_id", "action", "propensity", "reason", "model", "experiment_version", "ranking", "ignored_actions")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    RANKING_FIELD_NUMBER: _ClassVar[int]
    IGNORED_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    action: DecidedAction
    propensity: float
    reason: Reason
    model: int
    experiment_version: int
    ranking: _containers.RepeatedCompositeFieldContainer[RankedAction]
    ignored_actions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision_id: _Optional[str] = ..., action: _Optional[_Union[DecidedAction, _Mapping]] = ..., propensity: _Optional[float] = ..., reason: _Optional[_Union[Reason, str]] = ..., model: _Optional[int] = ..., experiment_version: _Optional[int] = ..., ranking: _Optional[_Iterable[_Union[RankedAction, _Mapping]]] = ..., ignored_actions: _Optional[_Iterable[str]] = ...) -> None: ...

class DecideBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[DecideRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[DecideRequest, _Mapping]]] = ...) -> None: ...

class DecideBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[DecideResult]
    def __init__(self, results: _Optional[_Iterable[_Union[DecideResult, _Mapping]]] = ...) -> None: ...

class DecideResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: DecideResponse
    error: _status_pb2.Status
    def __init__(self, response: _Optional[_Union[DecideResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class DecideSlateRequest(_message.Message):
    __slots__ = ("experiment", "unit_id", "context", "slate_id", "slots", "action_features", "explore", "with_ranking", "actions")
    class ActionFeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Struct
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    UNIT_ID_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SLATE_ID_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    ACTION_FEATURES_FIELD_NUMBER: _ClassVar[int]
    EXPLORE_FIELD_NUMBER: _ClassVar[int]
    WITH_RANKING_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    unit_id: str
    context: Context
    slate_id: str
    slots: _containers.RepeatedCompositeFieldContainer[Slot]
    action_features: _containers.MessageMap[str, _struct_pb2.Struct]
    explore: bool
    with_ranking: bool
    actions: _containers.RepeatedCompositeFieldContainer[CalledAction]
    def __init__(self, experiment: _Optional[str] = ..., unit_id: _Optional[str] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., slate_id: _Optional[str] = ..., slots: _Optional[_Iterable[_Union[Slot, _Mapping]]] = ..., action_features: _Optional[_Mapping[str, _struct_pb2.Struct]] = ..., explore: _Optional[bool] = ..., with_ranking: _Optional[bool] = ..., actions: _Optional[_Iterable[_Union[CalledAction, _Mapping]]] = ...) -> None: ...

class Slot(_message.Message):
    __slots__ = ("features", "eligible_actions", "excluded_actions", "default_action")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_ACTIONS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_ACTION_FIELD_NUMBER: _ClassVar[int]
    features: _struct_pb2.Struct
    eligible_actions: _containers.RepeatedScalarFieldContainer[str]
    excluded_actions: _containers.RepeatedScalarFieldContainer[str]
    default_action: str
    def __init__(self, features: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., eligible_actions: _Optional[_Iterable[str]] = ..., excluded_actions: _Optional[_Iterable[str]] = ..., default_action: _Optional[str] = ...) -> None: ...

class DecideSlateResponse(_message.Message):
    __slots__ = ("slate_id", "decisions")
    SLATE_ID_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    slate_id: str
    decisions: _containers.RepeatedCompositeFieldContainer[DecideResponse]
    def __init__(self, slate_id: _Optional[str] = ..., decisions: _Optional[_Iterable[_Union[DecideResponse, _Mapping]]] = ...) -> None: ...

class ActivateRequest(_message.Message):
    __slots__ = ("decision_id", "action")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    action: str
    def __init__(self, decision_id: _Optional[str] = ..., action: _Optional[str] = ...) -> None: ...

class ActivateResponse(_message.Message):
    __slots__ = ("first", "outcome")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    first: bool
    outcome: ActivationOutcome
    def __init__(self, first: _Optional[bool] = ..., outcome: _Optional[_Union[ActivationOutcome, str]] = ...) -> None: ...

class RewardRequest(_message.Message):
    __slots__ = ("decision_id", "name", "value", "reward_id", "occurred_at", "retract", "correct", "final", "unit_id", "experiment")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    REWARD_ID_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    RETRACT_FIELD_NUMBER: _ClassVar[int]
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    UNIT_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    name: str
    value: float
    reward_id: str
    occurred_at: _timestamp_pb2.Timestamp
    retract: bool
    correct: bool
    final: bool
    unit_id: str
    experiment: str
    def __init__(self, decision_id: _Optional[str] = ..., name: _Optional[str] = ..., value: _Optional[float] = ..., reward_id: _Optional[str] = ..., occurred_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., retract: _Optional[bool] = ..., correct: _Optional[bool] = ..., final: _Optional[bool] = ..., unit_id: _Optional[str] = ..., experiment: _Optional[str] = ...) -> None: ...

class RewardResponse(_message.Message):
    __slots__ = ("outcome", "decision_ids")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DECISION_IDS_FIELD_NUMBER: _ClassVar[int]
    outcome: RewardOutcome
    decision_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, outcome: _Optional[_Union[RewardOutcome, str]] = ..., decision_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class LinkUnitsRequest(_message.Message):
    __slots__ = ("unit_id", "same_as")
    UNIT_ID_FIELD_NUMBER: _ClassVar[int]
    SAME_AS_FIELD_NUMBER: _ClassVar[int]
    unit_id: str
    same_as: str
    def __init__(self, unit_id: _Optional[str] = ..., same_as: _Optional[str] = ...) -> None: ...

class LinkUnitsResponse(_message.Message):
    __slots__ = ("outcome",)
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    outcome: LinkOutcome
    def __init__(self, outcome: _Optional[_Union[LinkOutcome, str]] = ...) -> None: ...

class RewardBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RewardRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[RewardRequest, _Mapping]]] = ...) -> None: ...

class RewardBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RewardResult]
    def __init__(self, results: _Optional[_Iterable[_Union[RewardResult, _Mapping]]] = ...) -> None: ...

class RewardResult(_message.Message):
    __slots__ = ("response", "error")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    response: RewardResponse
    error: _status_pb2.Status
    def __init__(self, response: _Optional[_Union[RewardResponse, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...
