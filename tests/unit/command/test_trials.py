"""What explanations take beyond their passes is tried once, and kept for later starts of the same."""

import pytest

from xai_sidecar.command import trials
from xai_sidecar.command.trials import try_or_recall


@pytest.fixture
def start(make_model, tmp_path, monkeypatch):
    """A start with some overrides of the config, and what its trials give; returns what was known before them."""

    async def start(*overrides, gives=None):
        asked = []

        async def try_explainers(model, engine, known):
            asked.append(dict(known))
            return {"rise": 1.25, "occlusion": 1.5, **known} if gives is None else gives

        monkeypatch.setattr(trials, "try_explainers", try_explainers)
        await try_or_recall(make_model(f'model.compile_cache="{tmp_path}"', *overrides), None)
        return asked[0]

    return start


async def test_a_later_start_knows_what_the_first_one_found(start):
    assert await start() == {}
    assert await start() == {"rise": 1.25, "occlusion": 1.5}


@pytest.mark.parametrize(
    "changed",
    ["model.threads=3", "model.batch_sizes=[1,4]", "server.slice_milliseconds=77", "explainers.rise.masks=99"],
)
async def test_whatever_they_depend_on_is_tried_anew(start, changed):
    await start()
    assert await start(changed) == {}
    assert await start(changed) != {}


async def test_on_another_cpu_or_by_another_release_it_is_tried_anew(start, monkeypatch):
    await start()
    monkeypatch.setattr(trials, "__version__", "another")
    assert await start() == {}
    monkeypatch.setattr("xai_sidecar.backends.runtimes.keeping._cpu", lambda: "another")
    assert await start() == {}


@pytest.mark.parametrize("gives", [{}, {"rise": 0.0}, {"rise": float("nan")}, {"rise": float("inf")}])
async def test_what_is_no_ratio_is_not_known_later(start, gives):
    await start(gives=gives)
    assert await start() == {}


async def test_without_a_cache_nothing_is_kept(start):
    for _ in range(2):
        assert await start("model.compile_cache=false") == {}


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"rise": "fast"}', b'{"rise": null}', b"\xff"])
def test_a_file_of_something_else_says_nothing(content):
    assert trials._ratios(content) == {}
