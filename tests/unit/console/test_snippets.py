"""The lines that repeat an explanation are taken by Python, by the SDK, and by xai-client."""

import ast
import shlex
from functools import partial
from types import SimpleNamespace

import pytest

from xai_client import Explain
from xai_client.command.main import _parser
from xai_console.snippets import python_lines, sample_lines, shell_lines

CALLS = [
    {},
    {"gradcam": {}, "auto": {}},
    {"rise": {"masks": 300, "seed": 7}, "gradcam": {"layer": "head", "normalization": "max"}},
    {"rise": {"budget": 1.5, "top_count": 2}, "auto": {"budget": 1.5, "top_count": 2}},
    {"occlusion": {"targets": [281, 282], "window_size": 32}},
]


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(
    "lines", [partial(python_lines, "127.0.0.1:50051", "it's a cat.jpg"), partial(sample_lines, "[::1]:1", "it's", 3)]
)
def test_the_lines_of_python_ask_the_same(lines, calls):
    tree = ast.parse(lines(calls))
    (predict,) = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "predict"
    ]  # fmt: skip
    (explain,) = [keyword.value for keyword in predict.keywords if keyword.arg == "explain"]
    made = eval(compile(ast.Expression(explain), "lines", "eval"), {"Explain": Explain})
    wanted = [Explain(name, **options) for name, options in calls.items()]
    messages = [Explain(each).to_message("x") if isinstance(each, str) else each.to_message("x") for each in made]
    assert messages == [each.to_message("x") for each in wanted]


def test_a_sample_is_fetched_and_what_the_model_saw_is_asked_as_no_traffic():
    asked = []

    class Client:
        def __init__(self, server):
            asked.append(server)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def model_info(self):
            return SimpleNamespace(input="the input")

        def sample(self, request_id, image_index):
            asked.append((request_id, image_index))
            return SimpleNamespace(model_input=lambda info: f"as the model takes it, of {info}", picture="the picture")

        def predict(self, image, **options):
            asked.append((image, options))
            return SimpleNamespace(
                panel=lambda picture: SimpleNamespace(save=lambda path: asked.append((picture, path)))
            )

    lines = sample_lines("127.0.0.1:50051", "it's", 3, {"gradcam": {}})
    exec(lines.replace("from xai_client import Client", ""), {"Client": Client})
    assert asked == [
        "127.0.0.1:50051",
        ("it's", 3),
        ("as the model takes it, of the input", {"explain": ["gradcam"], "skip_sampling": True}),
        ("the picture", "panel.png"),
    ]


@pytest.mark.parametrize("calls", CALLS)
def test_the_line_of_shell_is_taken_by_the_command(calls):
    words = shlex.split(shell_lines("127.0.0.1:50051", "it's a cat.jpg", calls))
    assert words[0] == "xai-client"
    arguments = _parser().parse_args(words[1:])
    assert [str(each) for each in arguments.images] == ["it's a cat.jpg"]
    assert ",".join(arguments.explain) == ",".join(calls)
    shared = [options for options in calls.values() if "seed" in options]
    assert arguments.seed == (shared[0]["seed"] if shared else None)


def test_explainers_of_other_seeds_have_a_line_of_their_own():
    """As the server draws them: a seed for each that is random."""
    calls = {"rise": {"seed": 7, "masks": 300}, "gradcam": {"layer": "head"}, "rise_plus": {"seed": 8}}
    lines = shell_lines("127.0.0.1:50051", "cat.jpg", calls).split(" && ")
    asked = [_parser().parse_args(shlex.split(line)[1:]) for line in lines]
    assert [(each.explain, each.seed) for each in asked] == [(["rise,gradcam"], 7), (["rise_plus"], 8)]
    assert [each.param for each in asked] == [["rise.masks=300", "gradcam.layer=head"], []]
