"""From the contract's reports of ground truth to those that the core takes, and from its receipts to the contract's."""

from __future__ import annotations

from xai_proto import explanation_pb2 as pb
from xai_sidecar.evaluator.records import BoxAnnotation, MaskAnnotation
from xai_sidecar.serving.ground_truth import GroundTruthReceipt
from xai_sidecar.serving.requests import Converted, GroundTruthReport, ReportedObject, ReportedPolygon


def read_report(request: pb.ReportGroundTruthRequest, byte_count: int | None = None) -> GroundTruthReport:
    """The core's report; its boxes and objects are converted when the core looks at them.

    Args:
        request: The contract's.
        byte_count: Size of it as it was received; None to have it encoded anew to find out.
    """
    return GroundTruthReport(
        request_id=request.request_id,
        image_index=request.image_index,
        labels=request.labels,
        class_ids=request.class_ids,
        boxes=Converted(request.boxes, _box),
        objects=Converted(request.objects, _object),
        model=request.model,
        byte_count=request.ByteSize() if byte_count is None else byte_count,
        keep_unmentioned=request.keep_unmentioned,
    )


def ground_truth_response(receipt: GroundTruthReceipt) -> pb.ReportGroundTruthResponse:
    """The contract's receipt."""
    return pb.ReportGroundTruthResponse(changed=receipt.changed, warnings=receipt.warnings)


def _object(one: pb.GroundTruthObject) -> ReportedObject:
    return ReportedObject(_annotation(one), one.label, one.class_id if one.HasField("class_id") else None)


def _annotation(one: pb.GroundTruthObject) -> BoxAnnotation | ReportedPolygon | MaskAnnotation | None:
    kind = one.WhichOneof("shape")
    if kind == "box":
        return _box(one.box)
    if kind == "polygon":
        return ReportedPolygon(Converted(one.polygon.points, lambda point: (point.x, point.y)))
    return MaskAnnotation(one.mask_png) if kind == "mask_png" else None


def _box(box: pb.Region) -> BoxAnnotation:
    return BoxAnnotation(box.left, box.top, box.right, box.bottom)
