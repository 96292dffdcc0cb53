"""What stands still for a while, the process or those around it, and goes on."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import grpc
import pytest

from xai_proto import explanation_pb2 as pb

pytestmark = pytest.mark.timed

RISE = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=1000))
ENDLESS = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=100_000))
HANG_SECONDS = 1


def asked(*images, explain=()):
    return pb.PredictRequest(images=images, explanations=explain)


def pause(process, seconds):
    """Has a process stand still; the kernel says when it does."""
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.send_signal(signal.SIGCONT)


def test_a_busy_server_that_is_stopped_and_goes_on_hangs_not(start_misbehaving, connect, picture, get):
    with start_misbehaving(f"server.hang_seconds={HANG_SECONDS}") as own, connect(own.grpc) as stub:
        running = stub.Predict.future(asked(picture(0), explain=[ENDLESS]))
        whole = stub.Predict.future(asked(picture(1), explain=[RISE]), timeout=60)
        for _ in range(2):
            time.sleep(0.2)
            pause(own.process, 1.3 * HANG_SECONDS)
        assert whole.result().predictions[0].explanations[0].status == pb.EXPLANATION_STATUS_COMPLETE
        assert not running.done()
        assert get(own.http, "/healthz")[0] == get(own.http, "/readyz")[0] == 200
        # While it drains, too.
        last = stub.Predict.future(asked(picture(2), explain=[RISE]), timeout=60)
        time.sleep(0.2)
        running.cancel()
        own.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        pause(own.process, 1.3 * HANG_SECONDS)
        assert last.result().predictions[0].explanations[0].status == pb.EXPLANATION_STATUS_COMPLETE
        assert own.wait() == 0
    assert [entry for entry in own.log if entry["event"] in ("device_lost", "computation_hangs")] == []


@contextlib.contextmanager
def undrained(script, config, *overrides):
    """A server whose stderr is a pipe that nobody reads, and its gRPC address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, str(script), "serve", "--config", str(config)]
    for override in (f"server.grpc={address}", "server.http=127.0.0.1:0", "server.log_format=json", *overrides):
        command += ["--set", override]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        yield process, address
    finally:
        process.kill()
        process.wait(20)
        process.stderr.close()


def _when_ready(stub, request):
    """Calls until the server has started: it listens before it is ready."""
    for _ in range(300):
        try:
            return stub.Predict(request, timeout=60, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(0.1)
    raise AssertionError("the server is not ready after 30 s")


def test_nobody_reads_the_log(misbehaving, connect, picture, only, tmp_path):
    config = tmp_path / "sidecar.toml"
    config.write_text('[model]\nfactory = "none:none"\ninput.size = 32\n')
    lines = 350  # of 280 bytes, where a pipe holds 64 KiB
    with undrained(misbehaving.__file__, config, *only("gradcam")) as (process, address), connect(address) as stub:
        _when_ready(stub, asked(picture(0)))
        for number in range(lines):
            request = pb.PredictRequest(images=[picture(0)], request_id=f"{number:0100}")
            stub.Predict(request, timeout=20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        os.set_blocking(process.stderr.fileno(), False)
        assert len(process.stderr.read()) > 32_768, "the log was too short to fill a pipe"


def test_a_second_server_on_one_store_is_told_at_once_whose_it_is(start_misbehaving, tmp_path):
    """Before it loads anything, which may take minutes."""
    store = ("evaluator.sample_rate=1", f"evaluator.store=sqlite:///{tmp_path}/store.db")
    with start_misbehaving(*store) as first, start_misbehaving(*store, wait=False) as second:
        assert second.wait() == 2
        (line,) = second.other_output
        assert f"evaluator.store: {tmp_path}/store.db cannot be used. Another server uses this store: process" in line
        assert f"process {first.process.pid} on " in line
        assert not any(entry["event"] == "loading" for entry in second.log)
