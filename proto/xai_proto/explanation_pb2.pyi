from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]

class MapEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MAP_ENCODING_UNSPECIFIED: _ClassVar[MapEncoding]
    MAP_ENCODING_FLOAT32: _ClassVar[MapEncoding]
    MAP_ENCODING_FLOAT16: _ClassVar[MapEncoding]
    MAP_ENCODING_PNG: _ClassVar[MapEncoding]

class Normalization(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NORMALIZATION_UNSPECIFIED: _ClassVar[Normalization]
    NORMALIZATION_NONE: _ClassVar[Normalization]
    NORMALIZATION_MAX: _ClassVar[Normalization]

class ChannelAggregation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANNEL_AGGREGATION_UNSPECIFIED: _ClassVar[ChannelAggregation]
    CHANNEL_AGGREGATION_MAX_ABS: _ClassVar[ChannelAggregation]
    CHANNEL_AGGREGATION_SUM_ABS: _ClassVar[ChannelAggregation]

class OcclusionFill(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OCCLUSION_FILL_UNSPECIFIED: _ClassVar[OcclusionFill]
    OCCLUSION_FILL_ZERO: _ClassVar[OcclusionFill]
    OCCLUSION_FILL_MEAN: _ClassVar[OcclusionFill]
    OCCLUSION_FILL_BLUR: _ClassVar[OcclusionFill]

class RiseEstimator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RISE_ESTIMATOR_UNSPECIFIED: _ClassVar[RiseEstimator]
    RISE_ESTIMATOR_REGRESSION: _ClassVar[RiseEstimator]
    RISE_ESTIMATOR_PLAIN: _ClassVar[RiseEstimator]

class AutoChoiceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUTO_CHOICE_KIND_UNSPECIFIED: _ClassVar[AutoChoiceKind]
    AUTO_CHOICE_KIND_BEST: _ClassVar[AutoChoiceKind]
    AUTO_CHOICE_KIND_BEST_OF_CLASS: _ClassVar[AutoChoiceKind]
    AUTO_CHOICE_KIND_FALLBACK: _ClassVar[AutoChoiceKind]

class ExplanationStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXPLANATION_STATUS_UNSPECIFIED: _ClassVar[ExplanationStatus]
    EXPLANATION_STATUS_COMPLETE: _ClassVar[ExplanationStatus]
    EXPLANATION_STATUS_TRUNCATED: _ClassVar[ExplanationStatus]
    EXPLANATION_STATUS_SKIPPED: _ClassVar[ExplanationStatus]
    EXPLANATION_STATUS_PARTIAL: _ClassVar[ExplanationStatus]

class MapStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MAP_STATUS_UNSPECIFIED: _ClassVar[MapStatus]
    MAP_STATUS_OK: _ClassVar[MapStatus]
    MAP_STATUS_ALL_ZERO: _ClassVar[MapStatus]
    MAP_STATUS_ZERO_GRADIENT: _ClassVar[MapStatus]
    MAP_STATUS_NOT_FINITE: _ClassVar[MapStatus]
    MAP_STATUS_NO_OOD_RANGE: _ClassVar[MapStatus]
    MAP_STATUS_UNRELIABLE: _ClassVar[MapStatus]

class EvaluatorState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVALUATOR_STATE_UNSPECIFIED: _ClassVar[EvaluatorState]
    EVALUATOR_STATE_NO_TRAFFIC: _ClassVar[EvaluatorState]
    EVALUATOR_STATE_UP_TO_DATE: _ClassVar[EvaluatorState]
    EVALUATOR_STATE_WORKING: _ClassVar[EvaluatorState]

class Activation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTIVATION_UNSPECIFIED: _ClassVar[Activation]
    ACTIVATION_SOFTMAX: _ClassVar[Activation]
    ACTIVATION_SIGMOID: _ClassVar[Activation]

class ParameterType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PARAMETER_TYPE_UNSPECIFIED: _ClassVar[ParameterType]
    PARAMETER_TYPE_INTEGER: _ClassVar[ParameterType]
    PARAMETER_TYPE_NUMBER: _ClassVar[ParameterType]
    PARAMETER_TYPE_STRING: _ClassVar[ParameterType]
    PARAMETER_TYPE_BOOLEAN: _ClassVar[ParameterType]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_UINT8: DataType
MAP_ENCODING_UNSPECIFIED: MapEncoding
MAP_ENCODING_FLOAT32: MapEncoding
MAP_ENCODING_FLOAT16: MapEncoding
MAP_ENCODING_PNG: MapEncoding
NORMALIZATION_UNSPECIFIED: Normalization
NORMALIZATION_NONE: Normalization
NORMALIZATION_MAX: Normalization
CHANNEL_AGGREGATION_UNSPECIFIED: ChannelAggregation
CHANNEL_AGGREGATION_MAX_ABS: ChannelAggregation
CHANNEL_AGGREGATION_SUM_ABS: ChannelAggregation
OCCLUSION_FILL_UNSPECIFIED: OcclusionFill
OCCLUSION_FILL_ZERO: OcclusionFill
OCCLUSION_FILL_MEAN: OcclusionFill
OCCLUSION_FILL_BLUR: OcclusionFill
RISE_ESTIMATOR_UNSPECIFIED: RiseEstimator
RISE_ESTIMATOR_REGRESSION: RiseEstimator
RISE_ESTIMATOR_PLAIN: RiseEstimator
AUTO_CHOICE_KIND_UNSPECIFIED: AutoChoiceKind
AUTO_CHOICE_KIND_BEST: AutoChoiceKind
AUTO_CHOICE_KIND_BEST_OF_CLASS: AutoChoiceKind
AUTO_CHOICE_KIND_FALLBACK: AutoChoiceKind
EXPLANATION_STATUS_UNSPECIFIED: ExplanationStatus
EXPLANATION_STATUS_COMPLETE: ExplanationStatus
EXPLANATION_STATUS_TRUNCATED: ExplanationStatus
EXPLANATION_STATUS_SKIPPED: ExplanationStatus
EXPLANATION_STATUS_PARTIAL: ExplanationStatus
MAP_STATUS_UNSPECIFIED: MapStatus
MAP_STATUS_OK: MapStatus
MAP_STATUS_ALL_ZERO: MapStatus
MAP_STATUS_ZERO_GRADIENT: MapStatus
MAP_STATUS_NOT_FINITE: MapStatus
MAP_STATUS_NO_OOD_RANGE: MapStatus
MAP_STATUS_UNRELIABLE: MapStatus
EVALUATOR_STATE_UNSPECIFIED: EvaluatorState
EVALUATOR_STATE_NO_TRAFFIC: EvaluatorState
EVALUATOR_STATE_UP_TO_DATE: EvaluatorState
EVALUATOR_STATE_WORKING: EvaluatorState
ACTIVATION_UNSPECIFIED: Activation
ACTIVATION_SOFTMAX: Activation
ACTIVATION_SIGMOID: Activation
PARAMETER_TYPE_UNSPECIFIED: ParameterType
PARAMETER_TYPE_INTEGER: ParameterType
PARAMETER_TYPE_NUMBER: ParameterType
PARAMETER_TYPE_STRING: ParameterType
PARAMETER_TYPE_BOOLEAN: ParameterType

class PredictRequest(_message.Message):
    __slots__ = ("images", "top_k", "explanations", "ood", "request_id", "model", "skip_sampling")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    EXPLANATIONS_FIELD_NUMBER: _ClassVar[int]
    OOD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SKIP_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    top_k: int
    explanations: _containers.RepeatedCompositeFieldContainer[ExplanationRequest]
    ood: bool
    request_id: str
    model: str
    skip_sampling: bool
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., top_k: _Optional[int] = ..., explanations: _Optional[_Iterable[_Union[ExplanationRequest, _Mapping]]] = ..., ood: bool = ..., request_id: _Optional[str] = ..., model: _Optional[str] = ..., skip_sampling: bool = ...) -> None: ...

class PredictStreamRequest(_message.Message):
    __slots__ = ("request", "progress_interval")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    request: PredictRequest
    progress_interval: _duration_pb2.Duration
    def __init__(self, request: _Optional[_Union[PredictRequest, _Mapping]] = ..., progress_interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("encoded", "pixels", "model_input")
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    MODEL_INPUT_FIELD_NUMBER: _ClassVar[int]
    encoded: bytes
    pixels: Tensor
    model_input: Tensor
    def __init__(self, encoded: _Optional[bytes] = ..., pixels: _Optional[_Union[Tensor, _Mapping]] = ..., model_input: _Optional[_Union[Tensor, _Mapping]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "data")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    dtype: DataType
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, dtype: _Optional[_Union[DataType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class ExplanationRequest(_message.Message):
    __slots__ = ("explainer", "name", "gradient", "deconvolution", "guided_backprop", "gradcam", "occlusion", "rise", "rise_plus", "named_parameters", "targets", "budget", "seed", "condition", "encoding")
    EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GRADIENT_FIELD_NUMBER: _ClassVar[int]
    DECONVOLUTION_FIELD_NUMBER: _ClassVar[int]
    GUIDED_BACKPROP_FIELD_NUMBER: _ClassVar[int]
    GRADCAM_FIELD_NUMBER: _ClassVar[int]
    OCCLUSION_FIELD_NUMBER: _ClassVar[int]
    RISE_FIELD_NUMBER: _ClassVar[int]
    RISE_PLUS_FIELD_NUMBER: _ClassVar[int]
    NAMED_PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    explainer: str
    name: str
    gradient: GradientParameters
    deconvolution: DeconvolutionParameters
    guided_backprop: GuidedBackpropParameters
    gradcam: GradCamParameters
    occlusion: OcclusionParameters
    rise: RiseParameters
    rise_plus: RisePlusParameters
    named_parameters: _struct_pb2.Struct
    targets: Targets
    budget: _duration_pb2.Duration
    seed: int
    condition: Condition
    encoding: MapEncoding
    def __init__(self, explainer: _Optional[str] = ..., name: _Optional[str] = ..., gradient: _Optional[_Union[GradientParameters, _Mapping]] = ..., deconvolution: _Optional[_Union[DeconvolutionParameters, _Mapping]] = ..., guided_backprop: _Optional[_Union[GuidedBackpropParameters, _Mapping]] = ..., gradcam: _Optional[_Union[GradCamParameters, _Mapping]] = ..., occlusion: _Optional[_Union[OcclusionParameters, _Mapping]] = ..., rise: _Optional[_Union[RiseParameters, _Mapping]] = ..., rise_plus: _Optional[_Union[RisePlusParameters, _Mapping]] = ..., named_parameters: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., targets: _Optional[_Union[Targets, _Mapping]] = ..., budget: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., seed: _Optional[int] = ..., condition: _Optional[_Union[Condition, _Mapping]] = ..., encoding: _Optional[_Union[MapEncoding, str]] = ...) -> None: ...

class Targets(_message.Message):
    __slots__ = ("class_ids", "min_probability", "top_count")
    CLASS_IDS_FIELD_NUMBER: _ClassVar[int]
    MIN_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    TOP_COUNT_FIELD_NUMBER: _ClassVar[int]
    class_ids: _containers.RepeatedScalarFieldContainer[int]
    min_probability: float
    top_count: int
    def __init__(self, class_ids: _Optional[_Iterable[int]] = ..., min_probability: _Optional[float] = ..., top_count: _Optional[int] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("top_probability_below", "ood_percentile_below")
    TOP_PROBABILITY_BELOW_FIELD_NUMBER: _ClassVar[int]
    OOD_PERCENTILE_BELOW_FIELD_NUMBER: _ClassVar[int]
    top_probability_below: float
    ood_percentile_below: float
    def __init__(self, top_probability_below: _Optional[float] = ..., ood_percentile_below: _Optional[float] = ...) -> None: ...

class GradientParameters(_message.Message):
    __slots__ = ("aggregation", "normalization")
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    aggregation: ChannelAggregation
    normalization: Normalization
    def __init__(self, aggregation: _Optional[_Union[ChannelAggregation, str]] = ..., normalization: _Optional[_Union[Normalization, str]] = ...) -> None: ...

class DeconvolutionParameters(_message.Message):
    __slots__ = ("aggregation", "normalization")
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    aggregation: ChannelAggregation
    normalization: Normalization
    def __init__(self, aggregation: _Optional[_Union[ChannelAggregation, str]] = ..., normalization: _Optional[_Union[Normalization, str]] = ...) -> None: ...

class GuidedBackpropParameters(_message.Message):
    __slots__ = ("aggregation", "normalization")
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    aggregation: ChannelAggregation
    normalization: Normalization
    def __init__(self, aggregation: _Optional[_Union[ChannelAggregation, str]] = ..., normalization: _Optional[_Union[Normalization, str]] = ...) -> None: ...

class GradCamParameters(_message.Message):
    __slots__ = ("layer", "normalization")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    layer: str
    normalization: Normalization
    def __init__(self, layer: _Optional[str] = ..., normalization: _Optional[_Union[Normalization, str]] = ...) -> None: ...

class OcclusionParameters(_message.Message):
    __slots__ = ("window_size", "stride", "fill", "normalization")
    WINDOW_SIZE_FIELD_NUMBER: _ClassVar[int]
    STRIDE_FIELD_NUMBER: _ClassVar[int]
    FILL_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    window_size: int
    stride: int
    fill: OcclusionFill
    normalization: Normalization
    def __init__(self, window_size: _Optional[int] = ..., stride: _Optional[int] = ..., fill: _Optional[_Union[OcclusionFill, str]] = ..., normalization: _Optional[_Union[Normalization, str]] = ...) -> None: ...

class RiseParameters(_message.Message):
    __slots__ = ("mask_count", "grid_size", "keep_probability", "tolerance", "normalization", "estimator")
    MASK_COUNT_FIELD_NUMBER: _ClassVar[int]
    GRID_SIZE_FIELD_NUMBER: _ClassVar[int]
    KEEP_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    mask_count: int
    grid_size: int
    keep_probability: float
    tolerance: float
    normalization: Normalization
    estimator: RiseEstimator
    def __init__(self, mask_count: _Optional[int] = ..., grid_size: _Optional[int] = ..., keep_probability: _Optional[float] = ..., tolerance: _Optional[float] = ..., normalization: _Optional[_Union[Normalization, str]] = ..., estimator: _Optional[_Union[RiseEstimator, str]] = ...) -> None: ...

class RisePlusParameters(_message.Message):
    __slots__ = ("rise",)
    RISE_FIELD_NUMBER: _ClassVar[int]
    rise: RiseParameters
    def __init__(self, rise: _Optional[_Union[RiseParameters, _Mapping]] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("request_id", "predictions", "model_version", "sampled")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    model_version: str
    sampled: bool
    def __init__(self, request_id: _Optional[str] = ..., predictions: _Optional[_Iterable[_Union[Prediction, _Mapping]]] = ..., model_version: _Optional[str] = ..., sampled: bool = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("classes", "ood", "explanations", "picture", "region")
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    OOD_FIELD_NUMBER: _ClassVar[int]
    EXPLANATIONS_FIELD_NUMBER: _ClassVar[int]
    PICTURE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    classes: _containers.RepeatedCompositeFieldContainer[ClassScore]
    ood: OodScore
    explanations: _containers.RepeatedCompositeFieldContainer[Explanation]
    picture: PictureSize
    region: Region
    def __init__(self, classes: _Optional[_Iterable[_Union[ClassScore, _Mapping]]] = ..., ood: _Optional[_Union[OodScore, _Mapping]] = ..., explanations: _Optional[_Iterable[_Union[Explanation, _Mapping]]] = ..., picture: _Optional[_Union[PictureSize, _Mapping]] = ..., region: _Optional[_Union[Region, _Mapping]] = ...) -> None: ...

class ClassScore(_message.Message):
    __slots__ = ("class_id", "label", "probability", "logit")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    LOGIT_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    label: str
    probability: float
    logit: float
    def __init__(self, class_id: _Optional[int] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ..., logit: _Optional[float] = ...) -> None: ...

class OodScore(_message.Message):
    __slots__ = ("score", "percentile")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    score: float
    percentile: float
    def __init__(self, score: _Optional[float] = ..., percentile: _Optional[float] = ...) -> None: ...

class PictureSize(_message.Message):
    __slots__ = ("width", "height")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("left", "top", "right", "bottom")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    right: float
    bottom: float
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., right: _Optional[float] = ..., bottom: _Optional[float] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("name", "explainer", "status", "status_message", "maps", "parameters", "seed", "pass_count", "truncated", "elapsed", "auto_choice", "precision")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _struct_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    EXPLAINER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATUS_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MAPS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    PASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    AUTO_CHOICE_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    explainer: str
    status: ExplanationStatus
    status_message: str
    maps: _containers.RepeatedCompositeFieldContainer[SaliencyMap]
    parameters: _containers.MessageMap[str, _struct_pb2.Value]
    seed: int
    pass_count: int
    truncated: bool
    elapsed: _duration_pb2.Duration
    auto_choice: AutoChoice
    precision: str
    def __init__(self, name: _Optional[str] = ..., explainer: _Optional[str] = ..., status: _Optional[_Union[ExplanationStatus, str]] = ..., status_message: _Optional[str] = ..., maps: _Optional[_Iterable[_Union[SaliencyMap, _Mapping]]] = ..., parameters: _Optional[_Mapping[str, _struct_pb2.Value]] = ..., seed: _Optional[int] = ..., pass_count: _Optional[int] = ..., truncated: bool = ..., elapsed: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., auto_choice: _Optional[_Union[AutoChoice, _Mapping]] = ..., precision: _Optional[str] = ...) -> None: ...

class AutoChoice(_message.Message):
    __slots__ = ("reason", "kind", "composite_score", "advantage")
    REASON_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    COMPOSITE_SCORE_FIELD_NUMBER: _ClassVar[int]
    ADVANTAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    kind: AutoChoiceKind
    composite_score: float
    advantage: Advantage
    def __init__(self, reason: _Optional[str] = ..., kind: _Optional[_Union[AutoChoiceKind, str]] = ..., composite_score: _Optional[float] = ..., advantage: _Optional[_Union[Advantage, _Mapping]] = ...) -> None: ...

class Advantage(_message.Message):
    __slots__ = ("over", "mean", "confidence_half_width")
    OVER_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_HALF_WIDTH_FIELD_NUMBER: _ClassVar[int]
    over: str
    mean: float
    confidence_half_width: float
    def __init__(self, over: _Optional[str] = ..., mean: _Optional[float] = ..., confidence_half_width: _Optional[float] = ...) -> None: ...

class SaliencyMap(_message.Message):
    __slots__ = ("class_id", "label", "status", "tensor", "png", "standard_error", "standard_error_bound", "precision_error")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    PNG_FIELD_NUMBER: _ClassVar[int]
    STANDARD_ERROR_FIELD_NUMBER: _ClassVar[int]
    STANDARD_ERROR_BOUND_FIELD_NUMBER: _ClassVar[int]
    PRECISION_ERROR_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    label: str
    status: MapStatus
    tensor: Tensor
    png: PngMap
    standard_error: float
    standard_error_bound: float
    precision_error: float
    def __init__(self, class_id: _Optional[int] = ..., label: _Optional[str] = ..., status: _Optional[_Union[MapStatus, str]] = ..., tensor: _Optional[_Union[Tensor, _Mapping]] = ..., png: _Optional[_Union[PngMap, _Mapping]] = ..., standard_error: _Optional[float] = ..., standard_error_bound: _Optional[float] = ..., precision_error: _Optional[float] = ...) -> None: ...

class PngMap(_message.Message):
    __slots__ = ("data", "minimum", "maximum")
    DATA_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    minimum: float
    maximum: float
    def __init__(self, data: _Optional[bytes] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ...) -> None: ...

class PredictStreamResponse(_message.Message):
    __slots__ = ("request_id", "predicted", "progress", "explained", "finished")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    EXPLAINED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    predicted: PredictResponse
    progress: ExplanationProgress
    explained: ExplanationUpdate
    finished: StreamFinished
    def __init__(self, request_id: _Optional[str] = ..., predicted: _Optional[_Union[PredictResponse, _Mapping]] = ..., progress: _Optional[_Union[ExplanationProgress, _Mapping]] = ..., explained: _Optional[_Union[ExplanationUpdate, _Mapping]] = ..., finished: _Optional[_Union[StreamFinished, _Mapping]] = ...) -> None: ...

class ExplanationProgress(_message.Message):
    __slots__ = ("image_index", "name", "pass_count", "planned_pass_count", "standard_error", "remaining")
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    PLANNED_PASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    STANDARD_ERROR_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    image_index: int
    name: str
    pass_count: int
    planned_pass_count: int
    standard_error: float
    remaining: _duration_pb2.Duration
    def __init__(self, image_index: _Optional[int] = ..., name: _Optional[str] = ..., pass_count: _Optional[int] = ..., planned_pass_count: _Optional[int] = ..., standard_error: _Optional[float] = ..., remaining: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ExplanationUpdate(_message.Message):
    __slots__ = ("image_index", "explanation")
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    image_index: int
    explanation: Explanation
    def __init__(self, image_index: _Optional[int] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

class StreamFinished(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportGroundTruthRequest(_message.Message):
    __slots__ = ("request_id", "image_index", "labels", "boxes", "class_ids", "objects", "model", "keep_unmentioned")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    CLASS_IDS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KEEP_UNMENTIONED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    image_index: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    boxes: _containers.RepeatedCompositeFieldContainer[Region]
    class_ids: _containers.RepeatedScalarFieldContainer[int]
    objects: _containers.RepeatedCompositeFieldContainer[GroundTruthObject]
    model: str
    keep_unmentioned: bool
    def __init__(self, request_id: _Optional[str] = ..., image_index: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., boxes: _Optional[_Iterable[_Union[Region, _Mapping]]] = ..., class_ids: _Optional[_Iterable[int]] = ..., objects: _Optional[_Iterable[_Union[GroundTruthObject, _Mapping]]] = ..., model: _Optional[str] = ..., keep_unmentioned: bool = ...) -> None: ...

class GroundTruthObject(_message.Message):
    __slots__ = ("box", "polygon", "mask_png", "label", "class_id")
    BOX_FIELD_NUMBER: _ClassVar[int]
    POLYGON_FIELD_NUMBER: _ClassVar[int]
    MASK_PNG_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    box: Region
    polygon: Polygon
    mask_png: bytes
    label: str
    class_id: int
    def __init__(self, box: _Optional[_Union[Region, _Mapping]] = ..., polygon: _Optional[_Union[Polygon, _Mapping]] = ..., mask_png: _Optional[bytes] = ..., label: _Optional[str] = ..., class_id: _Optional[int] = ...) -> None: ...

class Polygon(_message.Message):
    __slots__ = ("points",)
    POINTS_FIELD_NUMBER: _ClassVar[int]
    points: _containers.RepeatedCompositeFieldContainer[Point]
    def __init__(self, points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ...) -> None: ...

class ReportGroundTruthResponse(_message.Message):
    __slots__ = ("changed", "warnings")
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changed: bool = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetModelInfoResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: ModelInfo
    def __init__(self, model: _Optional[_Union[ModelInfo, _Mapping]] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "version", "class_count", "labels", "activation", "input", "device", "engine", "explainers", "ood", "limits", "server_version", "ready_time", "batches", "engine_note", "evaluator", "layers", "weights", "run")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    EXPLAINERS_FIELD_NUMBER: _ClassVar[int]
    OOD_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    READY_TIME_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_NOTE_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    class_count: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    activation: Activation
    input: InputInfo
    device: str
    engine: str
    explainers: _containers.RepeatedCompositeFieldContainer[ExplainerInfo]
    ood: OodInfo
    limits: Limits
    server_version: str
    ready_time: _timestamp_pb2.Timestamp
    batches: _containers.RepeatedCompositeFieldContainer[BatchCost]
    engine_note: str
    evaluator: EvaluatorInfo
    layers: _containers.RepeatedCompositeFieldContainer[LayerInfo]
    weights: str
    run: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., class_count: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., activation: _Optional[_Union[Activation, str]] = ..., input: _Optional[_Union[InputInfo, _Mapping]] = ..., device: _Optional[str] = ..., engine: _Optional[str] = ..., explainers: _Optional[_Iterable[_Union[ExplainerInfo, _Mapping]]] = ..., ood: _Optional[_Union[OodInfo, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., server_version: _Optional[str] = ..., ready_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., batches: _Optional[_Iterable[_Union[BatchCost, _Mapping]]] = ..., engine_note: _Optional[str] = ..., evaluator: _Optional[_Union[EvaluatorInfo, _Mapping]] = ..., layers: _Optional[_Iterable[_Union[LayerInfo, _Mapping]]] = ..., weights: _Optional[str] = ..., run: _Optional[str] = ...) -> None: ...

class LayerInfo(_message.Message):
    __slots__ = ("name", "channels", "height", "width", "available", "compiled", "is_default")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    COMPILED_FIELD_NUMBER: _ClassVar[int]
    IS_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    name: str
    channels: int
    height: int
    width: int
    available: bool
    compiled: bool
    is_default: bool
    def __init__(self, name: _Optional[str] = ..., channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., available: bool = ..., compiled: bool = ..., is_default: bool = ...) -> None: ...

class EvaluatorInfo(_message.Message):
    __slots__ = ("sample_rate", "state", "last_sample_time", "window", "window_sample_count", "note", "metrics", "accuracy", "controls")
    SAMPLE_RATE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LAST_SAMPLE_TIME_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    WINDOW_SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    CONTROLS_FIELD_NUMBER: _ClassVar[int]
    sample_rate: float
    state: EvaluatorState
    last_sample_time: _timestamp_pb2.Timestamp
    window: _duration_pb2.Duration
    window_sample_count: int
    note: str
    metrics: _containers.RepeatedCompositeFieldContainer[MetricInfo]
    accuracy: Accuracy
    controls: _containers.RepeatedCompositeFieldContainer[ControlInfo]
    def __init__(self, sample_rate: _Optional[float] = ..., state: _Optional[_Union[EvaluatorState, str]] = ..., last_sample_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., window: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., window_sample_count: _Optional[int] = ..., note: _Optional[str] = ..., metrics: _Optional[_Iterable[_Union[MetricInfo, _Mapping]]] = ..., accuracy: _Optional[_Union[Accuracy, _Mapping]] = ..., controls: _Optional[_Iterable[_Union[ControlInfo, _Mapping]]] = ...) -> None: ...

class ControlInfo(_message.Message):
    __slots__ = ("name", "description", "quality", "composite_score")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    COMPOSITE_SCORE_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    quality: _containers.RepeatedCompositeFieldContainer[QualityMeasure]
    composite_score: float
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., quality: _Optional[_Iterable[_Union[QualityMeasure, _Mapping]]] = ..., composite_score: _Optional[float] = ...) -> None: ...

class Accuracy(_message.Message):
    __slots__ = ("picture_count", "share", "classes")
    PICTURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    picture_count: int
    share: float
    classes: _containers.RepeatedCompositeFieldContainer[ClassConfusion]
    def __init__(self, picture_count: _Optional[int] = ..., share: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[ClassConfusion, _Mapping]]] = ...) -> None: ...

class ClassConfusion(_message.Message):
    __slots__ = ("class_id", "label", "true_positives", "false_positives", "false_negatives", "true_negatives", "precision", "recall")
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TRUE_POSITIVES_FIELD_NUMBER: _ClassVar[int]
    FALSE_POSITIVES_FIELD_NUMBER: _ClassVar[int]
    FALSE_NEGATIVES_FIELD_NUMBER: _ClassVar[int]
    TRUE_NEGATIVES_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    class_id: int
    label: str
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    precision: float
    recall: float
    def __init__(self, class_id: _Optional[int] = ..., label: _Optional[str] = ..., true_positives: _Optional[int] = ..., false_positives: _Optional[int] = ..., false_negatives: _Optional[int] = ..., true_negatives: _Optional[int] = ..., precision: _Optional[float] = ..., recall: _Optional[float] = ...) -> None: ...

class MetricInfo(_message.Message):
    __slots__ = ("name", "description", "higher_is_better", "minimum", "maximum")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    HIGHER_IS_BETTER_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    higher_is_better: bool
    minimum: float
    maximum: float
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., higher_is_better: bool = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ...) -> None: ...

class InputInfo(_message.Message):
    __slots__ = ("channels", "height", "width", "resize_height", "resize_width", "stretch", "interpolation", "mean", "std", "letterbox", "mean_colour")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    RESIZE_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RESIZE_WIDTH_FIELD_NUMBER: _ClassVar[int]
    STRETCH_FIELD_NUMBER: _ClassVar[int]
    INTERPOLATION_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    LETTERBOX_FIELD_NUMBER: _ClassVar[int]
    MEAN_COLOUR_FIELD_NUMBER: _ClassVar[int]
    channels: int
    height: int
    width: int
    resize_height: int
    resize_width: int
    stretch: bool
    interpolation: str
    mean: _containers.RepeatedScalarFieldContainer[float]
    std: _containers.RepeatedScalarFieldContainer[float]
    letterbox: bool
    mean_colour: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., resize_height: _Optional[int] = ..., resize_width: _Optional[int] = ..., stretch: bool = ..., interpolation: _Optional[str] = ..., mean: _Optional[_Iterable[float]] = ..., std: _Optional[_Iterable[float]] = ..., letterbox: bool = ..., mean_colour: _Optional[_Iterable[float]] = ...) -> None: ...

class ExplainerInfo(_message.Message):
    __slots__ = ("name", "description", "available", "unavailable_reason", "parameters", "cost", "quality", "composite_score", "standing", "precision", "weight_dependence", "drift")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_REASON_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    COMPOSITE_SCORE_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DEPENDENCE_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    available: bool
    unavailable_reason: str
    parameters: _containers.RepeatedCompositeFieldContainer[ParameterInfo]
    cost: ExplanationCost
    quality: _containers.RepeatedCompositeFieldContainer[QualityMeasure]
    composite_score: float
    standing: Standing
    precision: str
    weight_dependence: WeightDependence
    drift: _containers.RepeatedCompositeFieldContainer[MapDrift]
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., available: bool = ..., unavailable_reason: _Optional[str] = ..., parameters: _Optional[_Iterable[_Union[ParameterInfo, _Mapping]]] = ..., cost: _Optional[_Union[ExplanationCost, _Mapping]] = ..., quality: _Optional[_Iterable[_Union[QualityMeasure, _Mapping]]] = ..., composite_score: _Optional[float] = ..., standing: _Optional[_Union[Standing, _Mapping]] = ..., precision: _Optional[str] = ..., weight_dependence: _Optional[_Union[WeightDependence, _Mapping]] = ..., drift: _Optional[_Iterable[_Union[MapDrift, _Mapping]]] = ...) -> None: ...

class WeightDependence(_message.Message):
    __slots__ = ("entropy_rise", "correlation", "picture_count")
    ENTROPY_RISE_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_FIELD_NUMBER: _ClassVar[int]
    PICTURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    entropy_rise: float
    correlation: float
    picture_count: int
    def __init__(self, entropy_rise: _Optional[float] = ..., correlation: _Optional[float] = ..., picture_count: _Optional[int] = ...) -> None: ...

class MapDrift(_message.Message):
    __slots__ = ("statistic", "source", "class_label", "reference_mean", "current_mean", "ratio")
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CLASS_LABEL_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_MEAN_FIELD_NUMBER: _ClassVar[int]
    CURRENT_MEAN_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    statistic: str
    source: str
    class_label: str
    reference_mean: float
    current_mean: float
    ratio: float
    def __init__(self, statistic: _Optional[str] = ..., source: _Optional[str] = ..., class_label: _Optional[str] = ..., reference_mean: _Optional[float] = ..., current_mean: _Optional[float] = ..., ratio: _Optional[float] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("eligible", "objection", "advantage")
    ELIGIBLE_FIELD_NUMBER: _ClassVar[int]
    OBJECTION_FIELD_NUMBER: _ClassVar[int]
    ADVANTAGE_FIELD_NUMBER: _ClassVar[int]
    eligible: bool
    objection: str
    advantage: Advantage
    def __init__(self, eligible: bool = ..., objection: _Optional[str] = ..., advantage: _Optional[_Union[Advantage, _Mapping]] = ...) -> None: ...

class ParameterInfo(_message.Message):
    __slots__ = ("name", "description", "type", "default_value", "minimum", "maximum", "choices")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    type: ParameterType
    default_value: _struct_pb2.Value
    minimum: float
    maximum: float
    choices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., type: _Optional[_Union[ParameterType, str]] = ..., default_value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ..., choices: _Optional[_Iterable[str]] = ...) -> None: ...

class ExplanationCost(_message.Message):
    __slots__ = ("pass_count", "duration", "idle_duration")
    PASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    IDLE_DURATION_FIELD_NUMBER: _ClassVar[int]
    pass_count: int
    duration: _duration_pb2.Duration
    idle_duration: _duration_pb2.Duration
    def __init__(self, pass_count: _Optional[int] = ..., duration: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., idle_duration: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class QualityMeasure(_message.Message):
    __slots__ = ("metric", "mean", "confidence_half_width", "sample_count", "higher_is_better", "update_time", "goodness", "interval_low", "interval_high", "skill")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_HALF_WIDTH_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    HIGHER_IS_BETTER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    GOODNESS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_LOW_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_HIGH_FIELD_NUMBER: _ClassVar[int]
    SKILL_FIELD_NUMBER: _ClassVar[int]
    metric: str
    mean: float
    confidence_half_width: float
    sample_count: int
    higher_is_better: bool
    update_time: _timestamp_pb2.Timestamp
    goodness: float
    interval_low: float
    interval_high: float
    skill: Skill
    def __init__(self, metric: _Optional[str] = ..., mean: _Optional[float] = ..., confidence_half_width: _Optional[float] = ..., sample_count: _Optional[int] = ..., higher_is_better: bool = ..., update_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., goodness: _Optional[float] = ..., interval_low: _Optional[float] = ..., interval_high: _Optional[float] = ..., skill: _Optional[_Union[Skill, _Mapping]] = ...) -> None: ...

class Skill(_message.Message):
    __slots__ = ("control", "value", "confidence_half_width")
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_HALF_WIDTH_FIELD_NUMBER: _ClassVar[int]
    control: str
    value: float
    confidence_half_width: float
    def __init__(self, control: _Optional[str] = ..., value: _Optional[float] = ..., confidence_half_width: _Optional[float] = ...) -> None: ...

class OodInfo(_message.Message):
    __slots__ = ("training_sample_count", "training_time", "auroc")
    class AurocEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TRAINING_SAMPLE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_TIME_FIELD_NUMBER: _ClassVar[int]
    AUROC_FIELD_NUMBER: _ClassVar[int]
    training_sample_count: int
    training_time: _timestamp_pb2.Timestamp
    auroc: _containers.ScalarMap[str, float]
    def __init__(self, training_sample_count: _Optional[int] = ..., training_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., auroc: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_image_count", "max_pixel_count", "max_message_bytes", "max_explanation_count", "max_target_count", "max_pass_count", "max_call_duration")
    MAX_IMAGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_PIXEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_EXPLANATION_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_TARGET_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_PASS_COUNT_FIELD_NUMBER: _ClassVar[int]
    MAX_CALL_DURATION_FIELD_NUMBER: _ClassVar[int]
    max_image_count: int
    max_pixel_count: int
    max_message_bytes: int
    max_explanation_count: int
    max_target_count: int
    max_pass_count: int
    max_call_duration: _duration_pb2.Duration
    def __init__(self, max_image_count: _Optional[int] = ..., max_pixel_count: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_explanation_count: _Optional[int] = ..., max_target_count: _Optional[int] = ..., max_pass_count: _Optional[int] = ..., max_call_duration: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class BatchCost(_message.Message):
    __slots__ = ("batch_size", "duration")
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    batch_size: int
    duration: _duration_pb2.Duration
    def __init__(self, batch_size: _Optional[int] = ..., duration: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...
