"""Who gets in by gRPC, and to which methods: on a real server, with TLS."""

import time

import certificates
import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.rpc.roles import ROLES
from xai_sidecar.serving.callers import ANYBODY, Role

REFLECTION_V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
NEEDED = [(method, role) for method, roles in ROLES.items() if len(roles) == 1 for role in roles]
OPEN = [method for method, roles in ROLES.items() if roles == ANYBODY]


def code_of(channel, method, metadata=()):
    """What becomes of an empty request: its code and words, (OK, "") where it is answered."""
    many = channel.stream_stream(method)
    try:
        for _ in many(iter([b""]), timeout=10, metadata=metadata):
            break
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


@pytest.fixture(scope="module")
def channel(closed):
    with closed.channel() as channel:
        yield channel


@pytest.mark.parametrize("method", [method for method, roles in ROLES.items() if roles != ANYBODY])
def test_without_a_token_no_method_is_had(channel, bearer, method):
    code, words = code_of(channel, method)
    assert (code, words[:21]) == (grpc.StatusCode.UNAUTHENTICATED, "The call has no token")
    wrong = [("authorization", "Bearer wrong-secret")]
    code, words = code_of(channel, method, wrong)
    assert (code, words[:35]) == (grpc.StatusCode.UNAUTHENTICATED, "The server does not know this token")


@pytest.mark.parametrize(("method", "role"), NEEDED)
def test_a_role_too_few_is_named(channel, bearer, method, role):
    code, words = code_of(channel, method, bearer(f"all but {role.value}"))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert words.startswith(f"{method.rpartition('/')[2]} needs the role {role.value}, and the token ")
    code, _ = code_of(channel, method, bearer("all"))
    assert code not in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


@pytest.mark.parametrize("method", OPEN)
def test_load_balancers_need_no_token(channel, method):
    code, _ = code_of(channel, method)
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED)


@pytest.mark.parametrize("streams", [False, True])
def test_explanations_need_a_role_of_their_own(channel, bearer, image, streams):
    stub = pb_grpc.ExplanationServiceStub(channel)
    wanted = [pb.ExplanationRequest(explainer="gradcam")]

    def asked(name, explanations):
        request = pb.PredictRequest(images=[image], explanations=explanations)
        metadata = bearer(name)
        if not streams:
            return [stub.Predict(request, timeout=20, metadata=metadata)]
        return list(stub.PredictStream(pb.PredictStreamRequest(request=request), timeout=20, metadata=metadata))

    assert asked("nothing but predict", [])
    assert asked("all but read", wanted)
    with pytest.raises(grpc.RpcError) as caught:
        asked("nothing but predict", wanted)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert caught.value.details().startswith(
        "An explanation needs the role explain, and the token 'nothing but predict' has predict."
    )


def test_a_kept_answer_is_kept_from_those_who_may_not_have_it(channel, bearer, image):
    """A call that comes again gets the answer of the first, which was somebody else's."""
    stub = pb_grpc.ExplanationServiceStub(channel)
    explanations = [pb.ExplanationRequest(explainer="gradcam")]
    request = pb.PredictRequest(images=[image], explanations=explanations, request_id="the-same")
    stub.Predict(request, timeout=20, metadata=bearer("all"))
    call = stub.Predict.with_call(request, timeout=20, metadata=bearer("all but read"))[1]
    assert ("x-repeat", "repeated") in call.trailing_metadata()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=20, metadata=bearer("nothing but predict"))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_every_method_that_is_served_has_a_role(channel, bearer):
    """As the server itself describes its services."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def ask(**question):
        request = reflection_pb2.ServerReflectionRequest(**question)
        return next(stub.ServerReflectionInfo(iter([request]), timeout=10, metadata=bearer("all")))

    names = [service.name for service in ask(list_services="").list_services_response.service]
    in_table = {name.rpartition("/")[0].strip("/") for name in ROLES}
    assert in_table - set(names) == {"grpc.reflection.v1.ServerReflection"}
    served = set()
    for name in names:
        for data in ask(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            for service in file.service:
                if f"{file.package}.{service.name}" == name:
                    served |= {f"/{name}/{method.name}" for method in service.method}
    assert len(served) >= 13
    assert served <= set(ROLES), "a method has no role: add it to rpc/roles.py"


def test_reflection_is_had_by_both_names(channel, bearer):
    request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    ask = channel.stream_stream(REFLECTION_V1)
    data = next(ask(iter([request]), timeout=10, metadata=bearer("nothing but predict")))
    answer = reflection_pb2.ServerReflectionResponse.FromString(data)
    assert "xai.v1.ExplanationService" in {service.name for service in answer.list_services_response.service}


def test_tokens_are_in_no_log(closed, channel, bearer):
    for name in ("all", "all but predict"):
        code_of(channel, "/xai.v1.ExplanationService/Predict", bearer(name))
    code_of(channel, "/xai.v1.ExplanationService/Predict", [("authorization", "Bearer wrong-secret")])
    log = "".join(closed.log)
    assert '"reason": "UNAUTHENTICATED"' in log
    assert "'all but predict'" in log
    assert "secret" not in log


@pytest.mark.parametrize("who", ["nobody", "expired", "not yet", "another CA's"])
def test_who_has_no_certificate_of_the_ca_does_not_get_in(mutual, who):
    pairs = {
        "nobody": None,
        "expired": mutual.authority.issue("caller", days=(-2, -1)),
        "not yet": mutual.authority.issue("caller", days=(1, 2)),
        "another CA's": certificates.Authority("others").issue("caller"),
    }
    with mutual.channel(pairs[who]) as channel:
        stub = pb_grpc.ExplanationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_who_has_one_calls_by_its_name(mutual, image):
    with mutual.channel(mutual.authority.issue("lorry")) as channel:
        stub = pb_grpc.ExplanationServiceStub(channel)
        explanations = [pb.ExplanationRequest(explainer="gradcam")]
        answer = stub.Predict(pb.PredictRequest(images=[image], explanations=explanations), timeout=20)
    assert answer.predictions[0].explanations
    end = time.monotonic() + 20  # the log may be written after the answer has come
    while not any('"caller": "lorry"' in line for line in mutual.log if '"method": "Predict"' in line):
        assert time.monotonic() < end, mutual.log
        time.sleep(0.05)


def test_a_server_that_nobody_can_trust_is_not_called(closed):
    with closed.channel(authority=certificates.Authority("others")) as channel:
        stub = pb_grpc.ExplanationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_what_is_not_encrypted_is_not_answered(closed):
    with grpc.insecure_channel(closed.grpc) as channel:
        stub = pb_grpc.ExplanationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert Role.READ in ROLES["/xai.v1.ExplanationService/GetModelInfo"]
