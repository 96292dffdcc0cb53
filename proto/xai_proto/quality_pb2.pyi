from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from xai.v1 import explanation_pb2 as _explanation_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SampleOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLE_ORDER_UNSPECIFIED: _ClassVar[SampleOrder]
    SAMPLE_ORDER_NEWEST_FIRST: _ClassVar[SampleOrder]
    SAMPLE_ORDER_OLDEST_FIRST: _ClassVar[SampleOrder]
    SAMPLE_ORDER_LEAST_PROBABLE_FIRST: _ClassVar[SampleOrder]
    SAMPLE_ORDER_MOST_PROBABLE_FIRST: _ClassVar[SampleOrder]
    SAMPLE_ORDER_OUTLIERS_FIRST: _ClassVar[SampleOrder]
    SAMPLE_ORDER_INLIERS_FIRST: _ClassVar[SampleOrder]
    SAMPLE_ORDER_WORST_SCORE_FIRST: _ClassVar[SampleOrder]
    SAMPLE_ORDER_BEST_SCORE_FIRST: _ClassVar[SampleOrder]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_UNKNOWN: _ClassVar[Outcome]
    OUTCOME_TRUE_POSITIVE: _ClassVar[Outcome]
    OUTCOME_FALSE_POSITIVE: _ClassVar[Outcome]
    OUTCOME_FALSE_NEGATIVE: _ClassVar[Outcome]

class SampleState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLE_STATE_UNSPECIFIED: _ClassVar[SampleState]
    SAMPLE_STATE_PENDING: _ClassVar[SampleState]
    SAMPLE_STATE_SCORED: _ClassVar[SampleState]
    SAMPLE_STATE_DROPPED: _ClassVar[SampleState]
    SAMPLE_STATE_EXPIRED: _ClassVar[SampleState]
    SAMPLE_STATE_LOST: _ClassVar[SampleState]
    SAMPLE_STATE_FAILED: _ClassVar[SampleState]
    SAMPLE_STATE_NO_POSITIVE: _ClassVar[SampleState]
    SAMPLE_STATE_AMBIGUOUS: _ClassVar[SampleState]

class MaskingKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MASKING_KIND_UNSPECIFIED: _ClassVar[MaskingKind]
    MASKING_KIND_DELETION: _ClassVar[MaskingKind]
    MASKING_KIND_INSERTION: _ClassVar[MaskingKind]

class SampleEventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SAMPLE_EVENT_KIND_UNSPECIFIED: _ClassVar[SampleEventKind]
    SAMPLE_EVENT_KIND_NEW: _ClassVar[SampleEventKind]
    SAMPLE_EVENT_KIND_MEASURED: _ClassVar[SampleEventKind]
    SAMPLE_EVENT_KIND_LABELLED: _ClassVar[SampleEventKind]
    SAMPLE_EVENT_KIND_TRUTH_APPLIED: _ClassVar[SampleEventKind]
SAMPLE_ORDER_UNSPECIFIED: SampleOrder
SAMPLE_ORDER_NEWEST_FIRST: SampleOrder
SAMPLE_ORDER_OLDEST_FIRST: SampleOrder
SAMPLE_ORDER_LEAST_PROBABLE_FIRST: SampleOrder
SAMPLE_ORDER_MOST_PROBABLE_FIRST: SampleOrder
SAMPLE_ORDER_OUTLIERS_FIRST: SampleOrder
SAMPLE_ORDER_INLIERS_FIRST: SampleOrder
SAMPLE_ORDER_WORST_SCORE_FIRST: SampleOrder
SAMPLE_ORDER_BEST_SCORE_FIRST: SampleOrder
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_UNKNOWN: Outcome
OUTCOME_TRUE_POSITIVE: Outcome
OUTCOME_FALSE_POSITIVE: Outcome
OUTCOME_FALSE_NEGATIVE: Outcome
SAMPLE_STATE_UNSPECIFIED: SampleState
SAMPLE_STATE_PENDING: SampleState
SAMPLE_STATE_SCORED: SampleState
SAMPLE_STATE_DROPPED: SampleState
SAMPLE_STATE_EXPIRED: SampleState
SAMPLE_STATE_LOST: SampleState
SAMPLE_STATE_FAILED: SampleState
SAMPLE_STATE_NO_POSITIVE: SampleState
SAMPLE_STATE_AMBIGUOUS: SampleState
MASKING_KIND_UNSPECIFIED: MaskingKind
MASKING_KIND_DELETION: MaskingKind
MASKING_KIND_INSERTION: MaskingKind
SAMPLE_EVENT_KIND_UNSPECIFIED: SampleEventKind
SAMPLE_EVENT_KIND_NEW: SampleEventKind
SAMPLE_EVENT_KIND_MEASURED: SampleEventKind
SAMPLE_EVENT_KIND_LABELLED: SampleEventKind
SAMPLE_EVENT_KIND_TRUTH_APPLIED: SampleEventKind

class ListSamplesRequest(_message.Message):
    __slots__ = ("filter", "order", "order_explainer", "order_metric", "page_size", "page_token", "with_thumbnails", "with_map_of", "with_total_count", "model")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    ORDER_EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    ORDER_METRIC_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    WITH_THUMBNAILS_FIELD_NUMBER: _ClassVar[int]
    WITH_MAP_OF_FIELD_NUMBER: _ClassVar[int]
    WITH_TOTAL_COUNT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    filter: SampleFilter
    order: SampleOrder
    order_explainer: str
    order_metric: str
    page_size: int
    page_token: str
    with_thumbnails: bool
    with_map_of: str
    with_total_count: bool
    model: str
    def __init__(self, filter: _Optional[_Union[SampleFilter, _Mapping]] = ..., order: _Optional[_Union[SampleOrder, str]] = ..., order_explainer: _Optional[str] = ..., order_metric: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., with_thumbnails: bool = ..., with_map_of: _Optional[str] = ..., with_total_count: bool = ..., model: _Optional[str] = ...) -> None: ...

class ListSamplesResponse(_message.Message):
    __slots__ = ("samples", "next_page_token", "total_count")
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_COUNT_FIELD_NUMBER: _ClassVar[int]
    samples: _containers.RepeatedCompositeFieldContainer[SampleSummary]
    next_page_token: str
    total_count: int
    def __init__(self, samples: _Optional[_Iterable[_Union[SampleSummary, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_count: _Optional[int] = ...) -> None: ...

class SampleFilter(_message.Message):
    __slots__ = ("predicted_class_ids", "true_class_ids", "outcomes", "min_probability", "max_probability", "min_ood_percentile", "max_ood_percentile", "map_statuses", "map_explainer", "score", "start_time", "end_time", "states", "request_id", "any_model_version")
    PREDICTED_CLASS_IDS_FIELD_NUMBER: _ClassVar[int]
    TRUE_CLASS_IDS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    MIN_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    MAX_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    MIN_OOD_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    MAX_OOD_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    MAP_STATUSES_FIELD_NUMBER: _ClassVar[int]
    MAP_EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ANY_MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    predicted_class_ids: _containers.RepeatedScalarFieldContainer[int]
    true_class_ids: _containers.RepeatedScalarFieldContainer[int]
    outcomes: _containers.RepeatedScalarFieldContainer[Outcome]
    min_probability: float
    max_probability: float
    min_ood_percentile: float
    max_ood_percentile: float
    map_statuses: _containers.RepeatedScalarFieldContainer[_explanation_pb2.MapStatus]
    map_explainer: str
    score: ScoreRange
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    states: _containers.RepeatedScalarFieldContainer[SampleState]
    request_id: str
    any_model_version: bool
    def __init__(self, predicted_class_ids: _Optional[_Iterable[int]] = ..., true_class_ids: _Optional[_Iterable[int]] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, str]]] = ..., min_probability: _Optional[float] = ..., max_probability: _Optional[float] = ..., min_ood_percentile: _Optional[float] = ..., max_ood_percentile: _Optional[float] = ..., map_statuses: _Optional[_Iterable[_Union[_explanation_pb2.MapStatus, str]]] = ..., map_explainer: _Optional[str] = ..., score: _Optional[_Union[ScoreRange, _Mapping]] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., states: _Optional[_Iterable[_Union[SampleState, str]]] = ..., request_id: _Optional[str] = ..., any_model_version: bool = ...) -> None: ...

class ScoreRange(_message.Message):
    __slots__ = ("explainer", "metric", "minimum", "maximum")
    EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    explainer: str
    metric: str
    minimum: float
    maximum: float
    def __init__(self, explainer: _Optional[str] = ..., metric: _Optional[str] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ...) -> None: ...

class SampleSummary(_message.Message):
    __slots__ = ("request_id", "image_index", "time", "state", "model_version", "classes", "predicted_class_ids", "truth", "outcomes", "ood", "picture", "region", "frame", "has_thumbnail", "thumbnail_jpeg", "map", "explainers", "score")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_CLASS_IDS_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    OOD_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    HAS_THUMBNAIL_FIELD_NUMBER: _ClassVar[int]
    THUMBNAIL_JPEG_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    EXPLAINERS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image_index: int
    time: _timestamp_pb2.Timestamp
    state: SampleState
    model_version: str
    classes: _containers.RepeatedCompositeFieldContainer[_explanation_pb2.ClassScore]
    predicted_class_ids: _containers.RepeatedScalarFieldContainer[int]
    truth: SampleTruth
    outcomes: _containers.RepeatedCompositeFieldContainer[ClassOutcome]
    ood: _explanation_pb2.OodScore
    picture: _explanation_pb2.PictureSize
    region: _explanation_pb2.Region
    frame: _explanation_pb2.PictureSize
    has_thumbnail: bool
    thumbnail_jpeg: bytes
    map: SmallMap
    explainers: _containers.RepeatedCompositeFieldContainer[SampleMap]
    score: float
    def __init__(self, request_id: _Optional[str] = ..., image_index: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[SampleState, str]] = ..., model_version: _Optional[str] = ..., classes: _Optional[_Iterable[_Union[_explanation_pb2.ClassScore, _Mapping]]] = ..., predicted_class_ids: _Optional[_Iterable[int]] = ..., truth: _Optional[_Union[SampleTruth, _Mapping]] = ..., outcomes: _Optional[_Iterable[_Union[ClassOutcome, _Mapping]]] = ..., ood: _Optional[_Union[_explanation_pb2.OodScore, _Mapping]] = ..., picture: _Optional[_Union[_explanation_pb2.PictureSize, _Mapping]] = ..., region: _Optional[_Union[_explanation_pb2.Region, _Mapping]] = ..., frame: _Optional[_Union[_explanation_pb2.PictureSize, _Mapping]] = ..., has_thumbnail: bool = ..., thumbnail_jpeg: _Optional[bytes] = ..., map: _Optional[_Union[SmallMap, _Mapping]] = ..., explainers: _Optional[_Iterable[_Union[SampleMap, _Mapping]]] = ..., score: _Optional[float] = ...) -> None: ...

class ClassOutcome(_message.Message):
    __slots__ = ("class_id", "label", "outcome")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    label: str
    outcome: Outcome
    def __init__(self, class_id: _Optional[int] = ..., label: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ...) -> None: ...

class SampleTruth(_message.Message):
    __slots__ = ("time", "class_ids", "labels", "object_count", "objects", "applied")
    TIME_FIELD_NUMBER: _ClassVar[int]
    CLASS_IDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    OBJECT_COUNT_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    class_ids: _containers.RepeatedScalarFieldContainer[int]
    labels: _containers.RepeatedScalarFieldContainer[str]
    object_count: int
    objects: _containers.RepeatedCompositeFieldContainer[_explanation_pb2.GroundTruthObject]
    applied: bool
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., class_ids: _Optional[_Iterable[int]] = ..., labels: _Optional[_Iterable[str]] = ..., object_count: _Optional[int] = ..., objects: _Optional[_Iterable[_Union[_explanation_pb2.GroundTruthObject, _Mapping]]] = ..., applied: bool = ...) -> None: ...

class SampleMap(_message.Message):
    __slots__ = ("explainer", "status", "kept")
    EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    explainer: str
    status: _explanation_pb2.MapStatus
    kept: bool
    def __init__(self, explainer: _Optional[str] = ..., status: _Optional[_Union[_explanation_pb2.MapStatus, str]] = ..., kept: bool = ...) -> None: ...

class SmallMap(_message.Message):
    __slots__ = ("height", "width", "minimum", "maximum", "values")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    minimum: float
    maximum: float
    values: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ..., values: _Optional[bytes] = ...) -> None: ...

class GetSampleRequest(_message.Message):
    __slots__ = ("request_id", "image_index", "explainers", "encoding", "model")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EXPLAINERS_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image_index: int
    explainers: _containers.RepeatedScalarFieldContainer[str]
    encoding: _explanation_pb2.MapEncoding
    model: str
    def __init__(self, request_id: _Optional[str] = ..., image_index: _Optional[int] = ..., explainers: _Optional[_Iterable[str]] = ..., encoding: _Optional[_Union[_explanation_pb2.MapEncoding, str]] = ..., model: _Optional[str] = ...) -> None: ...

class GetSampleResponse(_message.Message):
    __slots__ = ("sample",)
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    sample: Sample
    def __init__(self, sample: _Optional[_Union[Sample, _Mapping]] = ...) -> None: ...

class Sample(_message.Message):
    __slots__ = ("summary", "input_png", "explanations", "server_version")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    INPUT_PNG_FIELD_NUMBER: _ClassVar[int]
    EXPLANATIONS_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    summary: SampleSummary
    input_png: bytes
    explanations: _containers.RepeatedCompositeFieldContainer[SampleExplanation]
    server_version: str
    def __init__(self, summary: _Optional[_Union[SampleSummary, _Mapping]] = ..., input_png: _Optional[bytes] = ..., explanations: _Optional[_Iterable[_Union[SampleExplanation, _Mapping]]] = ..., server_version: _Optional[str] = ...) -> None: ...

class SampleExplanation(_message.Message):
    __slots__ = ("explainer", "is_control", "maps", "values_kept", "parameters", "seed", "pass_count", "scores", "curves", "shape")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...
    EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    IS_CONTROL_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    VALUES_KEPT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    CURVES_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    explainer: str
    is_control: bool
    maps: _containers.RepeatedCompositeFieldContainer[_explanation_pb2.SaliencyMap]
    values_kept: bool
    parameters: _containers.MessageMap[str, _struct_pb2.Value]
    seed: int
    pass_count: int
    scores: _containers.RepeatedCompositeFieldContainer[SampleScore]
    curves: _containers.RepeatedCompositeFieldContainer[MaskingCurve]
    shape: MapShape
    def __init__(self, explainer: _Optional[str] = ..., is_control: bool = ..., maps: _Optional[_Iterable[_Union[_explanation_pb2.SaliencyMap, _Mapping]]] = ..., values_kept: bool = ..., parameters: _Optional[_Mapping[str, _struct_pb2.Value]] = ..., seed: _Optional[int] = ..., pass_count: _Optional[int] = ..., scores: _Optional[_Iterable[_Union[SampleScore, _Mapping]]] = ..., curves: _Optional[_Iterable[_Union[MaskingCurve, _Mapping]]] = ..., shape: _Optional[_Union[MapShape, _Mapping]] = ...) -> None: ...

class SampleScore(_message.Message):
    __slots__ = ("metric", "value", "status", "higher_is_better", "goodness", "time", "pass_count", "parameters", "is_current")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...
    METRIC_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HIGHER_IS_BETTER_FIELD_NUMBER: _ClassVar[int]
    GOODNESS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    PASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    IS_CURRENT_FIELD_NUMBER: _ClassVar[int]
    metric: str
    value: float
    status: str
    higher_is_better: bool
    goodness: float
    time: _timestamp_pb2.Timestamp
    pass_count: int
    parameters: _containers.MessageMap[str, _struct_pb2.Value]
    is_current: bool
    def __init__(self, metric: _Optional[str] = ..., value: _Optional[float] = ..., status: _Optional[str] = ..., higher_is_better: bool = ..., goodness: _Optional[float] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., pass_count: _Optional[int] = ..., parameters: _Optional[_Mapping[str, _struct_pb2.Value]] = ..., is_current: bool = ...) -> None: ...

class MaskingCurve(_message.Message):
    __slots__ = ("kind", "fill", "pixel_counts", "probabilities", "tie_seed", "area")
    KIND_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    PIXEL_COUNTS_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    TIE_SEED_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    kind: MaskingKind
    fill: str
    pixel_counts: _containers.RepeatedScalarFieldContainer[int]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    tie_seed: int
    area: float
    def __init__(self, kind: _Optional[_Union[MaskingKind, str]] = ..., fill: _Optional[str] = ..., pixel_counts: _Optional[_Iterable[int]] = ..., probabilities: _Optional[_Iterable[float]] = ..., tie_seed: _Optional[int] = ..., area: _Optional[float] = ...) -> None: ...

class MapShape(_message.Message):
    __slots__ = ("concentration", "centre_x", "centre_y", "border")
    CONCENTRATION_FIELD_NUMBER: _ClassVar[int]
    CENTRE_X_FIELD_NUMBER: _ClassVar[int]
    CENTRE_Y_FIELD_NUMBER: _ClassVar[int]
    BORDER_FIELD_NUMBER: _ClassVar[int]
    concentration: float
    centre_x: float
    centre_y: float
    border: float
    def __init__(self, concentration: _Optional[float] = ..., centre_x: _Optional[float] = ..., centre_y: _Optional[float] = ..., border: _Optional[float] = ...) -> None: ...

class WatchSamplesRequest(_message.Message):
    __slots__ = ("filter", "with_thumbnails", "with_map_of", "model")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    WITH_THUMBNAILS_FIELD_NUMBER: _ClassVar[int]
    WITH_MAP_OF_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    filter: SampleFilter
    with_thumbnails: bool
    with_map_of: str
    model: str
    def __init__(self, filter: _Optional[_Union[SampleFilter, _Mapping]] = ..., with_thumbnails: bool = ..., with_map_of: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class WatchSamplesResponse(_message.Message):
    __slots__ = ("events", "missed_count")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    MISSED_COUNT_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[SampleEvent]
    missed_count: int
    def __init__(self, events: _Optional[_Iterable[_Union[SampleEvent, _Mapping]]] = ..., missed_count: _Optional[int] = ...) -> None: ...

class SampleEvent(_message.Message):
    __slots__ = ("kinds", "sample")
    KINDS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    kinds: _containers.RepeatedScalarFieldContainer[SampleEventKind]
    sample: SampleSummary
    def __init__(self, kinds: _Optional[_Iterable[_Union[SampleEventKind, str]]] = ..., sample: _Optional[_Union[SampleSummary, _Mapping]] = ...) -> None: ...

class GetQualityRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetQualityResponse(_message.Message):
    __slots__ = ("quality",)
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    quality: Quality
    def __init__(self, quality: _Optional[_Union[Quality, _Mapping]] = ...) -> None: ...

class Quality(_message.Message):
    __slots__ = ("evaluator", "explainers", "weights", "vetoes", "min_sample_count", "auto_explainer", "auto_choice", "confusion", "outlier_percentile", "outlier_share", "alerts", "confusion_truncated")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    EXPLAINERS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    VETOES_FIELD_NUMBER: _ClassVar[int]
    MIN_SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    AUTO_EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    AUTO_CHOICE_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_FIELD_NUMBER: _ClassVar[int]
    OUTLIER_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    OUTLIER_SHARE_FIELD_NUMBER: _ClassVar[int]
    ALERTS_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    evaluator: _explanation_pb2.EvaluatorInfo
    explainers: _containers.RepeatedCompositeFieldContainer[ExplainerQuality]
    weights: _containers.ScalarMap[str, float]
    vetoes: _containers.RepeatedScalarFieldContainer[str]
    min_sample_count: int
    auto_explainer: str
    auto_choice: _explanation_pb2.AutoChoice
    confusion: _containers.RepeatedCompositeFieldContainer[ConfusionCell]
    outlier_percentile: float
    outlier_share: float
    alerts: _containers.RepeatedCompositeFieldContainer[QualityAlert]
    confusion_truncated: bool
    def __init__(self, evaluator: _Optional[_Union[_explanation_pb2.EvaluatorInfo, _Mapping]] = ..., explainers: _Optional[_Iterable[_Union[ExplainerQuality, _Mapping]]] = ..., weights: _Optional[_Mapping[str, float]] = ..., vetoes: _Optional[_Iterable[str]] = ..., min_sample_count: _Optional[int] = ..., auto_explainer: _Optional[str] = ..., auto_choice: _Optional[_Union[_explanation_pb2.AutoChoice, _Mapping]] = ..., confusion: _Optional[_Iterable[_Union[ConfusionCell, _Mapping]]] = ..., outlier_percentile: _Optional[float] = ..., outlier_share: _Optional[float] = ..., alerts: _Optional[_Iterable[_Union[QualityAlert, _Mapping]]] = ..., confusion_truncated: bool = ...) -> None: ...

class ExplainerQuality(_message.Message):
    __slots__ = ("explainer", "is_control", "quality", "composite_score", "standing", "classes", "drift")
    EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    IS_CONTROL_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    COMPOSITE_SCORE_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    explainer: str
    is_control: bool
    quality: _containers.RepeatedCompositeFieldContainer[_explanation_pb2.QualityMeasure]
    composite_score: float
    standing: _explanation_pb2.Standing
    classes: _containers.RepeatedCompositeFieldContainer[ClassQuality]
    drift: _containers.RepeatedCompositeFieldContainer[_explanation_pb2.MapDrift]
    def __init__(self, explainer: _Optional[str] = ..., is_control: bool = ..., quality: _Optional[_Iterable[_Union[_explanation_pb2.QualityMeasure, _Mapping]]] = ..., composite_score: _Optional[float] = ..., standing: _Optional[_Union[_explanation_pb2.Standing, _Mapping]] = ..., classes: _Optional[_Iterable[_Union[ClassQuality, _Mapping]]] = ..., drift: _Optional[_Iterable[_Union[_explanation_pb2.MapDrift, _Mapping]]] = ...) -> None: ...

class ClassQuality(_message.Message):
    __slots__ = ("class_id", "label", "measure")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    label: str
    measure: _explanation_pb2.QualityMeasure
    def __init__(self, class_id: _Optional[int] = ..., label: _Optional[str] = ..., measure: _Optional[_Union[_explanation_pb2.QualityMeasure, _Mapping]] = ...) -> None: ...

class ConfusionCell(_message.Message):
    __slots__ = ("true_class_id", "true_label", "predicted_class_id", "predicted_label", "count")
    TRUE_CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    TRUE_LABEL_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_LABEL_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    true_class_id: int
    true_label: str
    predicted_class_id: int
    predicted_label: str
    count: int
    def __init__(self, true_class_id: _Optional[int] = ..., true_label: _Optional[str] = ..., predicted_class_id: _Optional[int] = ..., predicted_label: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class QualityAlert(_message.Message):
    __slots__ = ("name", "summary", "advice")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    name: str
    summary: str
    advice: str
    def __init__(self, name: _Optional[str] = ..., summary: _Optional[str] = ..., advice: _Optional[str] = ...) -> None: ...

class GetQualityHistoryRequest(_message.Message):
    __slots__ = ("start_time", "end_time", "bin_count", "explainers", "metrics", "reference_start_time", "reference_end_time", "model")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    BIN_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXPLAINERS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_START_TIME_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_END_TIME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    bin_count: int
    explainers: _containers.RepeatedScalarFieldContainer[str]
    metrics: _containers.RepeatedScalarFieldContainer[str]
    reference_start_time: _timestamp_pb2.Timestamp
    reference_end_time: _timestamp_pb2.Timestamp
    model: str
    def __init__(self, start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., bin_count: _Optional[int] = ..., explainers: _Optional[_Iterable[str]] = ..., metrics: _Optional[_Iterable[str]] = ..., reference_start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., reference_end_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., model: _Optional[str] = ...) -> None: ...

class GetQualityHistoryResponse(_message.Message):
    __slots__ = ("history",)
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    history: QualityHistory
    def __init__(self, history: _Optional[_Union[QualityHistory, _Mapping]] = ...) -> None: ...

class QualityHistory(_message.Message):
    __slots__ = ("start_time", "bin_duration", "bin_count", "scores", "shapes", "traffic", "current", "reference", "reference_shapes", "reference_scores", "sample_count", "truncated", "reference_truncated")
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    BIN_DURATION_FIELD_NUMBER: _ClassVar[int]
    BIN_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    SHAPES_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_SHAPES_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_SCORES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    start_time: _timestamp_pb2.Timestamp
    bin_duration: _duration_pb2.Duration
    bin_count: int
    scores: _containers.RepeatedCompositeFieldContainer[ScoreSeries]
    shapes: _containers.RepeatedCompositeFieldContainer[ShapeSeries]
    traffic: _containers.RepeatedCompositeFieldContainer[TrafficFigures]
    current: TrafficFigures
    reference: TrafficFigures
    reference_shapes: _containers.RepeatedCompositeFieldContainer[ShapeSeries]
    reference_scores: _containers.RepeatedCompositeFieldContainer[ScoreSeries]
    sample_count: int
    truncated: bool
    reference_truncated: bool
    def __init__(self, start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., bin_duration: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., bin_count: _Optional[int] = ..., scores: _Optional[_Iterable[_Union[ScoreSeries, _Mapping]]] = ..., shapes: _Optional[_Iterable[_Union[ShapeSeries, _Mapping]]] = ..., traffic: _Optional[_Iterable[_Union[TrafficFigures, _Mapping]]] = ..., current: _Optional[_Union[TrafficFigures, _Mapping]] = ..., reference: _Optional[_Union[TrafficFigures, _Mapping]] = ..., reference_shapes: _Optional[_Iterable[_Union[ShapeSeries, _Mapping]]] = ..., reference_scores: _Optional[_Iterable[_Union[ScoreSeries, _Mapping]]] = ..., sample_count: _Optional[int] = ..., truncated: bool = ..., reference_truncated: bool = ...) -> None: ...

class ScoreSeries(_message.Message):
    __slots__ = ("explainer", "metric", "points")
    EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    explainer: str
    metric: str
    points: _containers.RepeatedCompositeFieldContainer[HistoryPoint]
    def __init__(self, explainer: _Optional[str] = ..., metric: _Optional[str] = ..., points: _Optional[_Iterable[_Union[HistoryPoint, _Mapping]]] = ...) -> None: ...

class ShapeSeries(_message.Message):
    __slots__ = ("explainer", "statistic", "points")
    EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    explainer: str
    statistic: str
    points: _containers.RepeatedCompositeFieldContainer[HistoryPoint]
    def __init__(self, explainer: _Optional[str] = ..., statistic: _Optional[str] = ..., points: _Optional[_Iterable[_Union[HistoryPoint, _Mapping]]] = ...) -> None: ...

class HistoryPoint(_message.Message):
    __slots__ = ("bin", "sample_count", "mean", "confidence_half_width")
    BIN_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_HALF_WIDTH_FIELD_NUMBER: _ClassVar[int]
    bin: int
    sample_count: int
    mean: float
    confidence_half_width: float
    def __init__(self, bin: _Optional[int] = ..., sample_count: _Optional[int] = ..., mean: _Optional[float] = ..., confidence_half_width: _Optional[float] = ...) -> None: ...

class TrafficFigures(_message.Message):
    __slots__ = ("bin", "sample_count", "mean_probability", "probability_deciles", "ood_count", "outlier_share", "mean_ood_percentile", "classes", "labelled_count", "right_count", "right_share")
    BIN_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_DECILES_FIELD_NUMBER: _ClassVar[int]
    OOD_COUNT_FIELD_NUMBER: _ClassVar[int]
    OUTLIER_SHARE_FIELD_NUMBER: _ClassVar[int]
    MEAN_OOD_PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    LABELLED_COUNT_FIELD_NUMBER: _ClassVar[int]
    RIGHT_COUNT_FIELD_NUMBER: _ClassVar[int]
    RIGHT_SHARE_FIELD_NUMBER: _ClassVar[int]
    bin: int
    sample_count: int
    mean_probability: float
    probability_deciles: _containers.RepeatedScalarFieldContainer[float]
    ood_count: int
    outlier_share: float
    mean_ood_percentile: float
    classes: _containers.RepeatedCompositeFieldContainer[ClassCount]
    labelled_count: int
    right_count: int
    right_share: float
    def __init__(self, bin: _Optional[int] = ..., sample_count: _Optional[int] = ..., mean_probability: _Optional[float] = ..., probability_deciles: _Optional[_Iterable[float]] = ..., ood_count: _Optional[int] = ..., outlier_share: _Optional[float] = ..., mean_ood_percentile: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[ClassCount, _Mapping]]] = ..., labelled_count: _Optional[int] = ..., right_count: _Optional[int] = ..., right_share: _Optional[float] = ...) -> None: ...

class ClassCount(_message.Message):
    __slots__ = ("class_id", "label", "count", "share")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    label: str
    count: int
    share: float
    def __init__(self, class_id: _Optional[int] = ..., label: _Optional[str] = ..., count: _Optional[int] = ..., share: _Optional[float] = ...) -> None: ...

class GetClassMapsRequest(_message.Message):
    __slots__ = ("explainers", "class_ids", "max_sample_count", "outcomes", "model")
    EXPLAINERS_FIELD_NUMBER: _ClassVar[int]
    CLASS_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    explainers: _containers.RepeatedScalarFieldContainer[str]
    class_ids: _containers.RepeatedScalarFieldContainer[int]
    max_sample_count: int
    outcomes: _containers.RepeatedScalarFieldContainer[Outcome]
    model: str
    def __init__(self, explainers: _Optional[_Iterable[str]] = ..., class_ids: _Optional[_Iterable[int]] = ..., max_sample_count: _Optional[int] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, str]]] = ..., model: _Optional[str] = ...) -> None: ...

class GetClassMapsResponse(_message.Message):
    __slots__ = ("maps",)
    MAPS_FIELD_NUMBER: _ClassVar[int]
    maps: _containers.RepeatedCompositeFieldContainer[ClassMap]
    def __init__(self, maps: _Optional[_Iterable[_Union[ClassMap, _Mapping]]] = ...) -> None: ...

class ClassMap(_message.Message):
    __slots__ = ("class_id", "label", "explainer", "sample_count", "map")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAP_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    label: str
    explainer: str
    sample_count: int
    map: SmallMap
    def __init__(self, class_id: _Optional[int] = ..., label: _Optional[str] = ..., explainer: _Optional[str] = ..., sample_count: _Optional[int] = ..., map: _Optional[_Union[SmallMap, _Mapping]] = ...) -> None: ...
