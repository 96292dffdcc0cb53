"""Where layers lie on the picture is found once for a net, and anew for another one."""

from pathlib import Path

import pytest

from xai_sidecar.backends.spatial import placement_cache
from xai_sidecar.backends.spatial.layers import Layers, SpatialLayer
from xai_sidecar.backends.spatial.placement_cache import placed

LAYERS = [
    SpatialLayer("early", 4, 6, 8, "nchw"),
    SpatialLayer("tokens", 5, 1, 3, "tokens", 4),
    SpatialLayer("late", 4, 3, 4, "nhwc"),
]
TOKENS = SpatialLayer("tokens", 5, 1, 3, "tokens", 4, (2, 0, 3))
FOUND = Layers({"early": LAYERS[0], "tokens": TOKENS}, {"late": "It is shifted: “so”."})


@pytest.fixture
def searches():
    """Finds `FOUND`, and counts how often."""

    def find(layers):
        find.count += 1
        assert list(layers) == LAYERS
        return FOUND

    find.count = 0
    return find


def test_what_was_found_is_found_again_without_a_search(tmp_path, searches):
    first, second = (placed(tmp_path / "cache", ("v", (1, 3, 8, 8)), LAYERS, searches) for _ in range(2))
    assert first == second == FOUND
    assert list(second.spatial) == ["early", "tokens"], "in the order in which they run"
    assert searches.count == 1


def test_another_key_other_layers_and_another_check_are_searched_anew(tmp_path, searches, monkeypatch):
    def search(key="v", layers=LAYERS):
        before = searches.count
        placed(tmp_path, key, layers, lambda _: searches(LAYERS))
        return searches.count - before

    assert [search(), search()] == [1, 0]
    assert [search("w"), search("w")] == [1, 0]
    for changed in (LAYERS[:2], LAYERS[::-1], [*LAYERS[:2], SpatialLayer("late", 4, 4, 3, "nhwc")]):
        assert [search(layers=changed), search(layers=changed)] == [1, 0]
    folder = tmp_path / "package"
    folder.mkdir()
    for source in Path(placement_cache.__file__).parent.glob("*.py"):
        (folder / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(placement_cache, "__file__", str(folder / "placement_cache.py"))
    assert search() == 0
    (folder / "displacement.py").write_bytes((folder / "displacement.py").read_bytes() + b"\n_ALIKE = 0.4\n")
    assert [search(), search()] == [1, 0]


def test_without_a_folder_or_in_one_that_cannot_be_used_each_start_searches(tmp_path, searches):
    (tmp_path / "file").write_text("")
    for root in (None, tmp_path / "file", Path("/dev/null/cache")):
        before = searches.count
        assert [placed(root, "v", LAYERS, searches) for _ in range(2)] == [FOUND] * 2
        assert searches.count == before + 2


def test_a_damaged_file_is_searched_anew(tmp_path, searches):
    placed(tmp_path, "v", LAYERS, searches)
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    file.write_bytes(file.read_bytes()[:-9])
    assert placed(tmp_path, "v", LAYERS, searches) == FOUND
    assert searches.count == 2
