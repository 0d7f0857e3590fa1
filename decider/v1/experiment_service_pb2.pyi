import datetime

from decider.v1 import experiment_pb2 as _experiment_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VersionedExperiment(_message.Message):
    __slots__ = ("experiment", "version", "applied_at", "model", "waiting", "author", "source", "note")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_AT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    experiment: _experiment_pb2.Experiment
    version: int
    applied_at: _timestamp_pb2.Timestamp
    model: int
    waiting: WaitingVersion
    author: str
    source: str
    note: str
    def __init__(self, experiment: _Optional[_Union[_experiment_pb2.Experiment, _Mapping]] = ..., version: _Optional[int] = ..., applied_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., model: _Optional[int] = ..., waiting: _Optional[_Union[WaitingVersion, _Mapping]] = ..., author: _Optional[str] = ..., source: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class WaitingVersion(_message.Message):
    __slots__ = ("version", "learned_position", "log_position")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LEARNED_POSITION_FIELD_NUMBER: _ClassVar[int]
    LOG_POSITION_FIELD_NUMBER: _ClassVar[int]
    version: int
    learned_position: int
    log_position: int
    def __init__(self, version: _Optional[int] = ..., learned_position: _Optional[int] = ..., log_position: _Optional[int] = ...) -> None: ...

class ApplyExperimentRequest(_message.Message):
    __slots__ = ("experiment", "validate_only", "author", "note")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    experiment: _experiment_pb2.Experiment
    validate_only: bool
    author: str
    note: str
    def __init__(self, experiment: _Optional[_Union[_experiment_pb2.Experiment, _Mapping]] = ..., validate_only: _Optional[bool] = ..., author: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class ApplyExperimentResponse(_message.Message):
    __slots__ = ("applied", "changed", "waits", "changes")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    WAITS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    applied: VersionedExperiment
    changed: bool
    waits: bool
    changes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, applied: _Optional[_Union[VersionedExperiment, _Mapping]] = ..., changed: _Optional[bool] = ..., waits: _Optional[bool] = ..., changes: _Optional[_Iterable[str]] = ...) -> None: ...

class GetExperimentRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetExperimentResponse(_message.Message):
    __slots__ = ("experiment",)
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    experiment: VersionedExperiment
    def __init__(self, experiment: _Optional[_Union[VersionedExperiment, _Mapping]] = ...) -> None: ...

class ListExperimentsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListExperimentsResponse(_message.Message):
    __slots__ = ("experiments", "next_page_token")
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    experiments: _containers.RepeatedCompositeFieldContainer[VersionedExperiment]
    next_page_token: str
    def __init__(self, experiments: _Optional[_Iterable[_Union[VersionedExperiment, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PauseExperimentRequest(_message.Message):
    __slots__ = ("id", "author", "note")
    ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    id: str
    author: str
    note: str
    def __init__(self, id: _Optional[str] = ..., author: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class PauseExperimentResponse(_message.Message):
    __slots__ = ("experiment",)
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    experiment: VersionedExperiment
    def __init__(self, experiment: _Optional[_Union[VersionedExperiment, _Mapping]] = ...) -> None: ...

class ResumeExperimentRequest(_message.Message):
    __slots__ = ("id", "author", "note")
    ID_FIELD_NUMBER: _ClassVar[int]
    AUTHOR_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    id: str
    author: str
    note: str
    def __init__(self, id: _Optional[str] = ..., author: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class ResumeExperimentResponse(_message.Message):
    __slots__ = ("experiment",)
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    experiment: VersionedExperiment
    def __init__(self, experiment: _Optional[_Union[VersionedExperiment, _Mapping]] = ...) -> None: ...
