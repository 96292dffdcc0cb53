"""The client of xai-sidecar: image predictions with saliency maps, laid right on your own picture.

    from xai_client import Client, Explain

    with Client("127.0.0.1:50051", timeout=30) as client:
        prediction = client.predict("cat.jpg", explain=["gradcam", Explain("gradient", top_count=2)], top_k=5)
        print(prediction.classes[0].label, prediction.classes[0].probability)
        prediction.explanations["gradcam"].overlay("cat.jpg").save("cat.gradcam.png")

`AsyncClient` is the same with coroutines. All errors are kinds of `XaiError`; see `xai_client.errors` for the tree.
"""

from xai_client.aio import AsyncClient
from xai_client.client import Client
from xai_client.errors import (
    AbortedError,
    AlreadyExistsError,
    ArgumentError,
    CallCancelledError,
    ClosedError,
    DataLossError,
    DeadlineError,
    ForkedError,
    ImageError,
    InternalError,
    InvalidRequestError,
    MapWithheldError,
    MessageTooLargeError,
    NotFoundError,
    OutOfRangeError,
    OverloadedError,
    ParameterError,
    PermissionDeniedError,
    PictureSizeError,
    PreconditionError,
    ResponseError,
    ServiceError,
    UnauthenticatedError,
    UnavailableError,
    UnknownError,
    UnsupportedError,
    XaiError,
)
from xai_client.evaluator_info import Accuracy, ClassConfusion, EvaluatorInfo, MetricInfo, QualityMeasure
from xai_client.ground_truth import GroundTruthObject, GroundTruthWarning, MaskLike
from xai_client.model_info import (
    BatchCost,
    ExplainerInfo,
    ExplanationCost,
    InputInfo,
    LayerInfo,
    Limits,
    ModelInfo,
    OodInfo,
    ParameterInfo,
)
from xai_client.overlay import COLORMAPS
from xai_client.picture import ImageLike
from xai_client.request import Explain
from xai_client.types import (
    AutoChoice,
    ClassScore,
    Event,
    Explained,
    Explanation,
    Finished,
    PictureSize,
    Predicted,
    Prediction,
    Progress,
    Region,
    SaliencyMap,
)

__all__ = [
    "COLORMAPS",
    "AbortedError",
    "Accuracy",
    "AlreadyExistsError",
    "ArgumentError",
    "AsyncClient",
    "AutoChoice",
    "BatchCost",
    "CallCancelledError",
    "ClassConfusion",
    "ClassScore",
    "Client",
    "ClosedError",
    "DataLossError",
    "DeadlineError",
    "EvaluatorInfo",
    "Event",
    "Explain",
    "Explained",
    "ExplainerInfo",
    "Explanation",
    "ExplanationCost",
    "Finished",
    "ForkedError",
    "GroundTruthObject",
    "GroundTruthWarning",
    "ImageError",
    "ImageLike",
    "InputInfo",
    "InternalError",
    "InvalidRequestError",
    "LayerInfo",
    "Limits",
    "MapWithheldError",
    "MaskLike",
    "MessageTooLargeError",
    "MetricInfo",
    "ModelInfo",
    "NotFoundError",
    "OodInfo",
    "OutOfRangeError",
    "OverloadedError",
    "ParameterError",
    "ParameterInfo",
    "PermissionDeniedError",
    "PictureSize",
    "PictureSizeError",
    "PreconditionError",
    "Predicted",
    "Prediction",
    "Progress",
    "QualityMeasure",
    "Region",
    "ResponseError",
    "SaliencyMap",
    "ServiceError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnknownError",
    "UnsupportedError",
    "XaiError",
]
