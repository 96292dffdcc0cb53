"""docs/protocols.md names tests that are there, and leaves out no method, data type, output, setting or route."""

import re
from pathlib import Path

import pytest

from xai_proto import open_inference_pb2 as pb
from xai_sidecar.http.roles import ROLES
from xai_sidecar.open_inference.asked import OF_EXPLANATIONS, PLAIN
from xai_sidecar.open_inference.settings import EXPLANATION_SETTINGS
from xai_sidecar.open_inference.tensors import DATATYPES, DTYPES

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "protocols.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:unit|clients)/[\w/]+\.py)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_named_test_is_there(path, name):
    text = (TESTS / path).read_text()
    assert f"def {name}(" in text if name else "def test_" in text


def test_nothing_is_left_out():
    assert len(NAMED) > 10
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    words = [each.name for each in service.methods] + [f"`{name}`" for name in (*PLAIN, *EXPLANATION_SETTINGS)]
    words += [f"`{name}.EXPLAINER`" for name in OF_EXPLANATIONS]
    assert [each for each in words if each not in PAGE] == []
    table = PAGE[PAGE.index("| data type |") :]
    ranges = {"INT8 to INT64": ("INT8", "INT16", "INT32", "INT64"), "UINT16 to UINT64": ("UINT16", "UINT32", "UINT64")}
    named = {name for text, names in ranges.items() if text in table for name in names}
    named |= {name for name in DATATYPES if re.search(rf"\b{name}\b", table)}
    assert named == set(DATATYPES) > set(DTYPES)


def test_every_route_of_a_protocol_is_named():
    named = PAGE.replace("NAME", "{model}").replace("VERSION", "{version}").replace("[", "").replace("]", "")
    for path in ROLES:
        if path.startswith(("/v1/predict", "/v2", "/openapi")):
            shown = path if "versions" in path else path.replace("{model}", "{model}/versions/{version}")
            assert path in named or shown in named, path
