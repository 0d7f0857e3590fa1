import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class OnCrossing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_CROSSING_UNSPECIFIED: _ClassVar[OnCrossing]
    ON_CROSSING_ALARM: _ClassVar[OnCrossing]
    ON_CROSSING_BASELINE: _ClassVar[OnCrossing]

class Activation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_UNSPECIFIED: _ClassVar[Activation]
    ACTIVATION_IMMEDIATE: _ClassVar[Activation]
    ACTIVATION_REQUIRED: _ClassVar[Activation]

class Override(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OVERRIDE_UNSPECIFIED: _ClassVar[Override]
    OVERRIDE_LEAVE_OUT: _ClassVar[Override]
    OVERRIDE_LEARN: _ClassVar[Override]

class ExperimentState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPERIMENT_STATE_UNSPECIFIED: _ClassVar[ExperimentState]
    EXPERIMENT_STATE_ACTIVE: _ClassVar[ExperimentState]
    EXPERIMENT_STATE_PAUSED: _ClassVar[ExperimentState]
    EXPERIMENT_STATE_ENDED: _ClassVar[ExperimentState]

class Learning(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEARNING_UNSPECIFIED: _ClassVar[Learning]
    LEARNING_ONLINE: _ClassVar[Learning]
    LEARNING_FROZEN: _ClassVar[Learning]
    LEARNING_APPRENTICE: _ClassVar[Learning]
    LEARNING_LOG_ONLY: _ClassVar[Learning]

class ActionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_STATE_UNSPECIFIED: _ClassVar[ActionState]
    ACTION_STATE_ACTIVE: _ClassVar[ActionState]
    ACTION_STATE_RETIRED: _ClassVar[ActionState]

class FeatureType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEATURE_TYPE_UNSPECIFIED: _ClassVar[FeatureType]
    FEATURE_TYPE_CATEGORY: _ClassVar[FeatureType]
    FEATURE_TYPE_NUMBER: _ClassVar[FeatureType]
    FEATURE_TYPE_FLAG: _ClassVar[FeatureType]

class OnFeatureProblem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_FEATURE_PROBLEM_UNSPECIFIED: _ClassVar[OnFeatureProblem]
    ON_FEATURE_PROBLEM_COUNT: _ClassVar[OnFeatureProblem]
    ON_FEATURE_PROBLEM_REFUSE: _ClassVar[OnFeatureProblem]

class Attribution(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ATTRIBUTION_UNSPECIFIED: _ClassVar[Attribution]
    ATTRIBUTION_LAST: _ClassVar[Attribution]
    ATTRIBUTION_FIRST: _ClassVar[Attribution]
    ATTRIBUTION_ALL: _ClassVar[Attribution]

class OutOfRange(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUT_OF_RANGE_UNSPECIFIED: _ClassVar[OutOfRange]
    OUT_OF_RANGE_CLIP: _ClassVar[OutOfRange]
    OUT_OF_RANGE_REFUSE: _ClassVar[OutOfRange]

class Aggregation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATION_UNSPECIFIED: _ClassVar[Aggregation]
    AGGREGATION_FIRST: _ClassVar[Aggregation]
    AGGREGATION_LAST: _ClassVar[Aggregation]
    AGGREGATION_SUM: _ClassVar[Aggregation]
    AGGREGATION_MAX: _ClassVar[Aggregation]
    AGGREGATION_MIN: _ClassVar[Aggregation]
    AGGREGATION_MEAN: _ClassVar[Aggregation]
ON_CROSSING_UNSPECIFIED: OnCrossing
ON_CROSSING_ALARM: OnCrossing
ON_CROSSING_BASELINE: OnCrossing
ACTIVATION_UNSPECIFIED: Activation
ACTIVATION_IMMEDIATE: Activation
ACTIVATION_REQUIRED: Activation
OVERRIDE_UNSPECIFIED: Override
OVERRIDE_LEAVE_OUT: Override
OVERRIDE_LEARN: Override
EXPERIMENT_STATE_UNSPECIFIED: ExperimentState
EXPERIMENT_STATE_ACTIVE: ExperimentState
EXPERIMENT_STATE_PAUSED: ExperimentState
EXPERIMENT_STATE_ENDED: ExperimentState
LEARNING_UNSPECIFIED: Learning
LEARNING_ONLINE: Learning
LEARNING_FROZEN: Learning
LEARNING_APPRENTICE: Learning
LEARNING_LOG_ONLY: Learning
ACTION_STATE_UNSPECIFIED: ActionState
ACTION_STATE_ACTIVE: ActionState
ACTION_STATE_RETIRED: ActionState
FEATURE_TYPE_UNSPECIFIED: FeatureType
FEATURE_TYPE_CATEGORY: FeatureType
FEATURE_TYPE_NUMBER: FeatureType
FEATURE_TYPE_FLAG: FeatureType
ON_FEATURE_PROBLEM_UNSPECIFIED: OnFeatureProblem
ON_FEATURE_PROBLEM_COUNT: OnFeatureProblem
ON_FEATURE_PROBLEM_REFUSE: OnFeatureProblem
ATTRIBUTION_UNSPECIFIED: Attribution
ATTRIBUTION_LAST: Attribution
ATTRIBUTION_FIRST: Attribution
ATTRIBUTION_ALL: Attribution
OUT_OF_RANGE_UNSPECIFIED: OutOfRange
OUT_OF_RANGE_CLIP: OutOfRange
OUT_OF_RANGE_REFUSE: OutOfRange
AGGREGATION_UNSPECIFIED: Aggregation
AGGREGATION_FIRST: Aggregation
AGGREGATION_LAST: Aggregation
AGGREGATION_SUM: Aggregation
AGGREGATION_MAX: Aggregation
AGGREGATION_MIN: Aggregation
AGGREGATION_MEAN: Aggregation

class Experiment(_message.Message):
    __slots__ = ("id", "description", "state", "actions", "baseline_action", "policy", "minimum_propensity", "holdout", "reward", "learning", "salt", "activation", "override", "actions_in_calls", "schema", "sticky", "caps", "time_zone", "history", "relearned", "guardrails")
    ID_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_ACTION_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    HOLDOUT_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    LEARNING_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_IN_CALLS_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    STICKY_FIELD_NUMBER: _ClassVar[int]
    CAPS_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    RELEARNED_FIELD_NUMBER: _ClassVar[int]
    GUARDRAILS_FIELD_NUMBER: _ClassVar[int]
    id: str
    description: str
    state: ExperimentState
    actions: _containers.RepeatedCompositeFieldContainer[Action]
    baseline_action: str
    policy: Policy
    minimum_propensity: float
    holdout: float
    reward: RewardDefinition
    learning: Learning
    salt: str
    activation: Activation
    override: Override
    actions_in_calls: ActionsInCalls
    schema: FeatureSchema
    sticky: _duration_pb2.Duration
    caps: _containers.RepeatedCompositeFieldContainer[Cap]
    time_zone: str
    history: HistoryDefinition
    relearned: Relearned
    guardrails: _containers.RepeatedCompositeFieldContainer[Guardrail]
    def __init__(self, id: _Optional[str] = ..., description: _Optional[str] = ..., state: _Optional[_Union[ExperimentState, str]] = ..., actions: _Optional[_Iterable[_Union[Action, _Mapping]]] = ..., baseline_action: _Optional[str] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., minimum_propensity: _Optional[float] = ..., holdout: _Optional[float] = ..., reward: _Optional[_Union[RewardDefinition, _Mapping]] = ..., learning: _Optional[_Union[Learning, str]] = ..., salt: _Optional[str] = ..., activation: _Optional[_Union[Activation, str]] = ..., override: _Optional[_Union[Override, str]] = ..., actions_in_calls: _Optional[_Union[ActionsInCalls, _Mapping]] = ..., schema: _Optional[_Union[FeatureSchema, _Mapping]] = ..., sticky: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., caps: _Optional[_Iterable[_Union[Cap, _Mapping]]] = ..., time_zone: _Optional[str] = ..., history: _Optional[_Union[HistoryDefinition, _Mapping]] = ..., relearned: _Optional[_Union[Relearned, _Mapping]] = ..., guardrails: _Optional[_Iterable[_Union[Guardrail, _Mapping]]] = ...) -> None: ...

class Guardrail(_message.Message):
    __slots__ = ("reward", "at_most", "at_least", "on_crossing", "again_after", "crossed_at")
    REWARD_FIELD_NUMBER: _ClassVar[int]
    AT_MOST_FIELD_NUMBER: _ClassVar[int]
    AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    ON_CROSSING_FIELD_NUMBER: _ClassVar[int]
    AGAIN_AFTER_FIELD_NUMBER: _ClassVar[int]
    CROSSED_AT_FIELD_NUMBER: _ClassVar[int]
    reward: str
    at_most: float
    at_least: float
    on_crossing: OnCrossing
    again_after: _duration_pb2.Duration
    crossed_at: _timestamp_pb2.Timestamp
    def __init__(self, reward: _Optional[str] = ..., at_most: _Optional[float] = ..., at_least: _Optional[float] = ..., on_crossing: _Optional[_Union[OnCrossing, str]] = ..., again_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., crossed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Cap(_message.Message):
    __slots__ = ("action", "kind", "most", "per")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    PER_FIELD_NUMBER: _ClassVar[int]
    action: str
    kind: str
    most: int
    per: _duration_pb2.Duration
    def __init__(self, action: _Optional[str] = ..., kind: _Optional[str] = ..., most: _Optional[int] = ..., per: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Relearned(_message.Message):
    __slots__ = ("until", "at", "reward")
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    until: int
    at: _timestamp_pb2.Timestamp
    reward: RewardDefinition
    def __init__(self, until: _Optional[int] = ..., at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reward: _Optional[_Union[RewardDefinition, _Mapping]] = ...) -> None: ...

class Action(_message.Message):
    __slots__ = ("id", "kind", "features", "payload", "state", "eligible_if", "available_from", "available_until", "min_share", "max_share", "daily_budget")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ELIGIBLE_IF_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FROM_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_UNTIL_FIELD_NUMBER: _ClassVar[int]
    MIN_SHARE_FIELD_NUMBER: _ClassVar[int]
    MAX_SHARE_FIELD_NUMBER: _ClassVar[int]
    DAILY_BUDGET_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    features: _struct_pb2.Struct
    payload: _struct_pb2.Struct
    state: ActionState
    eligible_if: str
    available_from: _timestamp_pb2.Timestamp
    available_until: _timestamp_pb2.Timestamp
    min_share: float
    max_share: float
    daily_budget: int
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., features: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., payload: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., state: _Optional[_Union[ActionState, str]] = ..., eligible_if: _Optional[str] = ..., available_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., available_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., min_share: _Optional[float] = ..., max_share: _Optional[float] = ..., daily_budget: _Optional[int] = ...) -> None: ...

class ActionsInCalls(_message.Message):
    __slots__ = ("most",)
    MOST_FIELD_NUMBER: _ClassVar[int]
    most: int
    def __init__(self, most: _Optional[int] = ...) -> None: ...

class FeatureSchema(_message.Message):
    __slots__ = ("features", "on_problem")
    class FeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FeatureRule
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FeatureRule, _Mapping]] = ...) -> None: ...
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    ON_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    features: _containers.MessageMap[str, FeatureRule]
    on_problem: OnFeatureProblem
    def __init__(self, features: _Optional[_Mapping[str, FeatureRule]] = ..., on_problem: _Optional[_Union[OnFeatureProblem, str]] = ...) -> None: ...

class FeatureRule(_message.Message):
    __slots__ = ("type", "values", "range", "required", "on_problem")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    ON_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    type: FeatureType
    values: _containers.RepeatedScalarFieldContainer[str]
    range: Range
    required: bool
    on_problem: OnFeatureProblem
    def __init__(self, type: _Optional[_Union[FeatureType, str]] = ..., values: _Optional[_Iterable[str]] = ..., range: _Optional[_Union[Range, _Mapping]] = ..., required: _Optional[bool] = ..., on_problem: _Optional[_Union[OnFeatureProblem, str]] = ...) -> None: ...

class HistoryDefinition(_message.Message):
    __slots__ = ("period", "rewards", "decisions", "last_action", "last_channel", "most")
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_ACTION_FIELD_NUMBER: _ClassVar[int]
    LAST_CHANNEL_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    period: _duration_pb2.Duration
    rewards: _containers.RepeatedScalarFieldContainer[str]
    decisions: bool
    last_action: bool
    last_channel: bool
    most: int
    def __init__(self, period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., rewards: _Optional[_Iterable[str]] = ..., decisions: _Optional[bool] = ..., last_action: _Optional[bool] = ..., last_channel: _Optional[bool] = ..., most: _Optional[int] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("epsilon_greedy", "softmax", "squarecb", "bag", "cover", "rnd", "first", "uniform", "fixed", "thompson", "interactions")
    EPSILON_GREEDY_FIELD_NUMBER: _ClassVar[int]
    SOFTMAX_FIELD_NUMBER: _ClassVar[int]
    SQUARECB_FIELD_NUMBER: _ClassVar[int]
    BAG_FIELD_NUMBER: _ClassVar[int]
    COVER_FIELD_NUMBER: _ClassVar[int]
    RND_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    UNIFORM_FIELD_NUMBER: _ClassVar[int]
    FIXED_FIELD_NUMBER: _ClassVar[int]
    THOMPSON_FIELD_NUMBER: _ClassVar[int]
    INTERACTIONS_FIELD_NUMBER: _ClassVar[int]
    epsilon_greedy: EpsilonGreedy
    softmax: Softmax
    squarecb: SquareCb
    bag: Bag
    cover: Cover
    rnd: Rnd
    first: First
    uniform: Uniform
    fixed: Fixed
    thompson: Thompson
    interactions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, epsilon_greedy: _Optional[_Union[EpsilonGreedy, _Mapping]] = ..., softmax: _Optional[_Union[Softmax, _Mapping]] = ..., squarecb: _Optional[_Union[SquareCb, _Mapping]] = ..., bag: _Optional[_Union[Bag, _Mapping]] = ..., cover: _Optional[_Union[Cover, _Mapping]] = ..., rnd: _Optional[_Union[Rnd, _Mapping]] = ..., first: _Optional[_Union[First, _Mapping]] = ..., uniform: _Optional[_Union[Uniform, _Mapping]] = ..., fixed: _Optional[_Union[Fixed, _Mapping]] = ..., thompson: _Optional[_Union[Thompson, _Mapping]] = ..., interactions: _Optional[_Iterable[str]] = ...) -> None: ...

class Thompson(_message.Message):
    __slots__ = ("width", "memory", "draws")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DRAWS_FIELD_NUMBER: _ClassVar[int]
    width: float
    memory: float
    draws: int
    def __init__(self, width: _Optional[float] = ..., memory: _Optional[float] = ..., draws: _Optional[int] = ...) -> None: ...

class EpsilonGreedy(_message.Message):
    __slots__ = ("epsilon",)
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    epsilon: float
    def __init__(self, epsilon: _Optional[float] = ...) -> None: ...

class Softmax(_message.Message):
    __slots__ = ()
    LAMBDA_FIELD_NUMBER: _ClassVar[int]
    def __init__(self, **kwargs) -> None: ...

class SquareCb(_message.Message):
    __slots__ = ("gamma_scale", "gamma_exponent")
    GAMMA_SCALE_FIELD_NUMBER: _ClassVar[int]
    GAMMA_EXPONENT_FIELD_NUMBER: _ClassVar[int]
    gamma_scale: float
    gamma_exponent: float
    def __init__(self, gamma_scale: _Optional[float] = ..., gamma_exponent: _Optional[float] = ...) -> None: ...

class Bag(_message.Message):
    __slots__ = ("size", "epsilon")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    size: int
    epsilon: float
    def __init__(self, size: _Optional[int] = ..., epsilon: _Optional[float] = ...) -> None: ...

class Cover(_message.Message):
    __slots__ = ("size",)
    SIZE_FIELD_NUMBER: _ClassVar[int]
    size: int
    def __init__(self, size: _Optional[int] = ...) -> None: ...

class Rnd(_message.Message):
    __slots__ = ("size", "alpha")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    size: int
    alpha: float
    def __init__(self, size: _Optional[int] = ..., alpha: _Optional[float] = ...) -> None: ...

class First(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class Uniform(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Fixed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RewardDefinition(_message.Message):
    __slots__ = ("window", "default_value", "weights", "range", "aggregation", "out_of_range", "attribution")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_RANGE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    window: _duration_pb2.Duration
    default_value: float
    weights: _containers.ScalarMap[str, float]
    range: Range
    aggregation: Aggregation
    out_of_range: OutOfRange
    attribution: Attribution
    def __init__(self, window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., default_value: _Optional[float] = ..., weights: _Optional[_Mapping[str, float]] = ..., range: _Optional[_Union[Range, _Mapping]] = ..., aggregation: _Optional[_Union[Aggregation, str]] = ..., out_of_range: _Optional[_Union[OutOfRange, str]] = ..., attribution: _Optional[_Union[Attribution, str]] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("minimum", "maximum")
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    minimum: float
    maximum: float
    def __init__(self, minimum: _Optional[float] = ..., maximum: _Optional[float] = ...) -> None: ...
