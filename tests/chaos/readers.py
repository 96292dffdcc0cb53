"""A client process: reads some streams of long explanations until it is killed.

Usage: readers.py ADDRESS PICTURE COUNT. Prints a line once there is progress on all of the streams.
"""

import sys
import threading
from pathlib import Path

import grpc

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc


def read(stub, request, begun):
    for event in stub.PredictStream(request):
        if event.HasField("progress"):
            begun.set()


def main(address, picture, count):
    image = pb.Image(encoded=Path(picture).read_bytes())
    rise = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=20_000))
    request = pb.PredictStreamRequest(request=pb.PredictRequest(images=[image], explanations=[rise]))
    request.progress_interval.FromMilliseconds(50)
    stub = pb_grpc.ExplanationServiceStub(grpc.insecure_channel(address))
    streams = [threading.Event() for _ in range(int(count))]
    for begun in streams:
        threading.Thread(target=read, args=(stub, request, begun)).start()
    for begun in streams:
        begun.wait()
    sys.stdout.write("reading\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
