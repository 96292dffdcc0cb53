"""Which layers of a net can be explained, and where on the picture their outputs lie."""

from types import SimpleNamespace

import numpy as np
import pytest

from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.device import select_device
from xai_sidecar.backends.mindspore.layers import layers_with_gradient, spatial_layers, trace_calls
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.backends.spatial import displacement
from xai_sidecar.backends.spatial import layers as spatial_layers_module
from xai_sidecar.backends.spatial.layers import default_layer
from xai_sidecar.engine.work import Forward, Kind

ROWS, COLUMNS, SIDE, CHANNELS = 3, 4, 4, 6
HEIGHT, WIDTH = ROWS * SIDE, COLUMNS * SIDE
PATCHES = ROWS * COLUMNS


def tensor(*shape, seed=0):
    return ms.Tensor(np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32))


def dense(inputs, outputs, seed=0):
    return nn.Dense(inputs, outputs, weight_init=tensor(outputs, inputs, seed=seed), has_bias=False)


class Mixing(nn.Cell):
    """Every token gets something of all others, on top of itself."""

    def __init__(self):
        super().__init__()
        self.values = dense(CHANNELS, CHANNELS, seed=3)

    def construct(self, tokens):
        weights = ms.ops.softmax(ms.ops.matmul(tokens, tokens.swapaxes(1, 2)), -1)
        return tokens + 0.5 * ms.ops.matmul(weights, self.values(tokens))


class Reordered(nn.Cell):
    """Gives the tokens in another order, as a scan over them in the other direction does."""

    def construct(self, tokens):
        return ms.ops.flip(tokens, (1,))


class Gathered(nn.Cell):
    """Puts tokens where they belong."""

    def __init__(self, order):
        super().__init__()
        self.order = ms.Tensor(order, ms.int32)

    def construct(self, tokens):
        return ms.ops.gather(tokens, self.order, 1)


class Transformer(nn.Cell):
    """Patches become tokens; `order` says which, counted row by row, and -1 for those that are not of the picture."""

    def __init__(self, order, reordered=False):
        super().__init__()
        weight = tensor(CHANNELS, 3, SIDE, SIDE)
        self.embed = nn.Conv2d(3, CHANNELS, SIDE, stride=SIDE, pad_mode="valid", weight_init=weight)
        extra = sum(place == -1 for place in order)
        # Extra tokens come last before they are put in their places.
        later = iter(range(PATCHES, PATCHES + extra))
        self.extra = tensor(1, max(extra, 1), CHANNELS, seed=1)
        self.has_extra = extra > 0
        self.placed = Gathered([next(later) if place == -1 else place for place in order])
        self.mix = Mixing()
        self.reordered = Reordered() if reordered else nn.Identity()
        self.head = dense(CHANNELS, 3, seed=2)

    def construct(self, x):
        tokens = self.embed(x).reshape((len(x), CHANNELS, -1)).swapaxes(1, 2)
        if self.has_extra:
            tokens = ms.ops.concat((tokens, ms.ops.tile(self.extra, (len(x), 1, 1))), 1)
        tokens = self.reordered(self.mix(self.placed(tokens)))
        return self.head(tokens.mean(1))


@pytest.fixture(scope="module", autouse=True)
def _on_a_cpu():
    select_device("cpu")  # before anything runs, as a backend does


def traced(net, layout="nchw", height=HEIGHT, width=WIDTH):
    shape = (2, 3, height, width) if layout == "nchw" else (2, height, width, 3)
    examples = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    calls = trace_calls(net.set_train(False), examples[:1])
    found = spatial_layers(net, calls, examples[:1], (height, width), layout)
    return found, default_layer(
        found.spatial, examples, lambda layers, inputs: layers_with_gradient(net, layers, inputs, 3)
    )


# ------------------------------------------------------------------------------------------------ tokens

PLAIN = list(range(PATCHES))
DOWN = [row * COLUMNS + column for column in range(COLUMNS) for row in range(ROWS)]

ORDERS = {
    "plain": PLAIN,
    "class token first": [-1, *PLAIN],
    "class token last": [*PLAIN, -1],
    "class token in the middle": [*PLAIN[:6], -1, *PLAIN[6:]],
    "class and distillation token first": [-1, -1, *PLAIN],
    "one at either end": [-1, *PLAIN, -1],
    "class token first, registers in the middle": [-1, *PLAIN[:5], -1, -1, -1, -1, *PLAIN[5:]],
    "one here, one there": [*PLAIN[:2], -1, *PLAIN[2:9], -1, *PLAIN[9:]],
    "down the columns": DOWN,
    "down the columns, class token last": [*DOWN, -1],
    "backwards": PLAIN[::-1],
}


@pytest.mark.parametrize("case", ORDERS)
def test_tokens_lie_where_the_net_put_them(case):
    order = ORDERS[case]
    found, default = traced(Transformer(order))
    assert found.refused == {}
    for name in ("placed", "mix", "mix.values", "reordered"):
        layer = found.spatial[name]
        assert (layer.height, layer.width, layer.token_count) == (ROWS, COLUMNS, len(order))
        assert layer.order == tuple(order.index(patch) for patch in range(PATCHES)), name
    assert default == "reordered"


def test_a_map_of_tokens_is_in_the_order_of_the_picture():
    layer = traced(Transformer(ORDERS["one here, one there"]))[0].spatial["mix"]
    output = np.full((1, PATCHES + 2, CHANNELS), -1.0, np.float32)
    for token, patch in enumerate(ORDERS["one here, one there"]):
        if patch >= 0:
            output[0, token] = patch
    right = np.broadcast_to(np.arange(PATCHES).reshape(1, 1, ROWS, COLUMNS), (1, CHANNELS, ROWS, COLUMNS))
    np.testing.assert_array_equal(layer.to_nchw(output), right)


def test_a_layer_that_gives_tokens_in_another_order_is_refused():
    found, default = traced(Transformer(ORDERS["class token first"], reordered=True))
    assert list(found.refused) == ["reordered"]
    assert "the tokens of the layer 'reordered'" in found.refused["reordered"]
    assert default == "mix"


class Everywhere(nn.Cell):
    """Tokens that look at all of the picture alike."""

    def __init__(self):
        super().__init__()
        self.tokens = Spread()
        self.head = dense(2, 3)

    def construct(self, x):
        return self.head(self.tokens(x).mean(1))


class Spread(nn.Cell):
    def construct(self, x):
        one = x.mean((2, 3))[:, None, :2]
        return ms.ops.tile(one, (1, PATCHES, 1)) * ms.ops.arange(1, PATCHES + 1).reshape((1, PATCHES, 1)).astype(
            ms.float32
        )


class Scanned(nn.Cell):
    """An MLP, wider inside, over the tokens in another order; behind it they lie as before."""

    def __init__(self):
        super().__init__()
        self.widen = dense(CHANNELS, 4 * CHANNELS, seed=4)
        self.narrow = dense(4 * CHANNELS, CHANNELS, seed=5)

    def construct(self, tokens):
        return tokens + ms.ops.flip(self.narrow(self.widen(ms.ops.flip(tokens, (1,)))), (1,))


def test_layers_of_other_channels_are_looked_at_as_well():
    net = Transformer(PLAIN)
    net.reordered = Scanned()
    found, _ = traced(net)
    assert set(found.refused) == {"reordered.widen", "reordered.narrow"}
    assert found.spatial["reordered"].order == tuple(PLAIN)


def test_tokens_that_lie_nowhere_are_refused():
    found, default = traced(Everywhere())
    assert (found.spatial, default) == ({}, None)
    assert "the layer 'tokens' lie on the picture cannot be told" in found.refused["tokens"]


class ChannelsLast(nn.Cell):
    """Takes (n, height, width, channels); a class token in the end."""

    def __init__(self):
        super().__init__()
        self.net = Transformer(ORDERS["class token last"])

    def construct(self, x):
        return self.net(x.transpose(0, 3, 1, 2))


def test_tokens_of_a_net_that_takes_channels_last():
    found, _ = traced(ChannelsLast(), "nhwc")
    assert found.spatial["net.mix"].order == tuple(PLAIN)


# ------------------------------------------------------------------------------------------------ in the right place


class Moving(nn.Cell):
    """A patch net, (n, CHANNELS, rows, columns) or channels last, some moves of its cells, and what undoes them."""

    def __init__(self, moves, undo=None, last=False, blur=False):
        super().__init__()
        weight = tensor(CHANNELS, 3, SIDE, SIDE)
        self.embed = nn.Conv2d(3, CHANNELS, SIDE, stride=SIDE, pad_mode="valid", weight_init=weight)
        # Sees nine cells, and itself as much as all others.
        look = np.random.default_rng(6).normal(0, 0.5, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        look[:, :, 1, 1] *= 3
        self.look = nn.Conv2d(CHANNELS, CHANNELS, 3, weight_init=ms.Tensor(look)) if blur else nn.Identity()
        self.last = last
        self.moved = nn.CellList([Move(move, last) for move in moves])
        self.undone = Move(undo or (lambda cells: cells), last)
        self.head = dense(CHANNELS, 3, seed=2)

    def construct(self, x):
        cells = self.look(self.embed(x))
        cells = cells.transpose(0, 2, 3, 1) if self.last else cells
        moved = cells
        for move in self.moved:
            moved = move(cells)
        return self.head(self.undone(moved).mean((1, 2) if self.last else (2, 3)))


class Move(nn.Cell):
    """Moves cells by a function of (n, rows, columns, channels)."""

    def __init__(self, move, last):
        super().__init__()
        self.move, self.last = move, last

    def construct(self, cells):
        if self.last:
            return self.move(cells)
        return self.move(cells.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def rolled(rows, columns):
    return lambda cells: ms.numpy.roll(cells, (rows, columns), (1, 2))


def shifted(cells):
    """By a column, and what comes in is zero."""
    return ms.ops.concat((0 * cells[:, :, :1], cells[:, :, :-1]), 2)


def windows_in(order, size=2):
    """Cuts the cells into windows, which come back in another order."""

    def move(cells):
        rows, columns = cells.shape[1] // size, cells.shape[2] // size
        cut = cells.reshape((-1, rows, size, columns, size, CHANNELS)).transpose(0, 1, 3, 2, 4, 5)
        cut = ms.ops.gather(cut.reshape((-1, rows * columns, size, size, CHANNELS)), ms.Tensor(order(rows, columns)), 1)
        cut = cut.reshape((-1, rows, columns, size, size, CHANNELS)).transpose(0, 1, 3, 2, 4, 5)
        return cut.reshape(cells.shape)

    return move


def windows_unwoven(cells):
    """Windows of two by two that are laid out as if they were rows."""
    rows, columns = cells.shape[1] // 2, cells.shape[2] // 2
    return cells.reshape((-1, rows, 2, columns, 2, CHANNELS)).transpose(0, 1, 3, 2, 4, 5).reshape(cells.shape)


def scattered(cells):
    count = cells.shape[1] * cells.shape[2]
    order = ms.Tensor(np.random.default_rng(3).permutation(count), ms.int32)
    return ms.ops.gather(cells.reshape((-1, count, CHANNELS)), order, 1).reshape(cells.shape)


MOVES = {
    "a row down": rolled(1, 0),
    "two rows up": rolled(-2, 0),
    "a column to the right": rolled(0, 1),
    "two columns to the left": rolled(0, -2),
    "as Swin does": rolled(-1, -1),
    "zeros come in": shifted,
    "rows flipped": lambda cells: ms.ops.flip(cells, (1,)),
    "columns flipped": lambda cells: ms.ops.flip(cells, (2,)),
    "turned": lambda cells: ms.ops.flip(cells, (1, 2)),
    "windows backwards": windows_in(lambda rows, columns: np.arange(rows * columns)[::-1].copy()),
    "windows down the columns": windows_in(lambda rows, columns: np.arange(rows * columns).reshape(rows, -1).T.ravel()),
    "windows not put together": windows_unwoven,
    "scattered": scattered,
}


@pytest.mark.parametrize("last", [False, True])
def test_layers_whose_cells_lie_elsewhere_are_refused(last):
    found, default = traced(Moving(MOVES.values(), last=last), height=6 * SIDE, width=8 * SIDE)
    offered = [move for number, move in enumerate(MOVES) if f"moved.{number}" in found.spatial]
    assert offered == []
    assert "the layer 'moved.3' does not lie on the picture as its 6 rows and 8 columns do" in found.refused["moved.3"]
    assert "undone" in found.refused  # it only hands on what lies elsewhere
    assert default == "look"


@pytest.mark.parametrize("blur", [False, True])
def test_layers_behind_one_that_puts_the_cells_back_are_not(blur):
    net = Moving([rolled(-2, -3)], rolled(2, 3), blur=blur)
    assert list(traced(net, height=7 * SIDE, width=7 * SIDE)[0].refused) == ["moved.0"]


def test_rows_and_columns_exchanged_are_refused():
    net = Moving([lambda cells: cells.transpose(0, 2, 1, 3)])
    assert list(traced(net, height=6 * SIDE, width=6 * SIDE)[0].refused) == ["moved.0", "undone"]


def test_what_an_earlier_start_found_holds_for_the_same_net_only(tmp_path, monkeypatch):
    """The nets differ in nothing but what a function holds: layers, shapes and weights are the same."""
    size = {"height": 6 * SIDE, "width": 8 * SIDE}
    source = ModelSource("", **size, batch_sizes=(1,), gradient_batch_sizes=(1,), cache=tmp_path)
    searched = []
    search = spatial_layers_module.displaced
    monkeypatch.setattr(spatial_layers_module, "displaced", lambda *args: searched.append(1) or search(*args))

    def refused(move):
        return set(MindSporeBackend(source, net=Moving([move])).refused_layers)

    moves = [rolled(0, 0), rolled(1, 0)]
    assert [refused(move) for move in moves] == [set(), {"moved.0", "undone"}]
    assert len(searched) == 2
    assert [refused(move) for move in moves] == [set(), {"moved.0", "undone"}]
    assert len(searched) == 2


@pytest.mark.parametrize("blur", [False, True])
def test_layers_that_move_nothing_are_not_refused(blur):
    found, default = traced(Moving([lambda cells: cells], blur=blur), height=6 * SIDE, width=8 * SIDE)
    assert found.refused == {}
    assert default == "undone"


class Looking(nn.Cell):
    """Layers that look at more and more of the picture, at last at all of it alike."""

    def __init__(self):
        super().__init__()
        sizes = [(3, 8), (8, 8), (8, 16), (16, 16), (16, 16), (16, 16)]
        self.body = nn.SequentialCell(
            [
                cell
                for seed, (inputs, outputs) in enumerate(sizes)
                for cell in (
                    nn.Conv2d(
                        inputs, outputs, 3, stride=1 + seed % 2, weight_init=tensor(outputs, inputs, 3, 3, seed=seed)
                    ),
                    nn.ReLU(),
                )
            ]
        )
        self.gate = Gate()
        self.head = dense(16, 3)

    def construct(self, x):
        return self.head(self.gate(self.body(x)).mean((2, 3)))


class Gate(nn.Cell):
    """All cells alike, from the whole picture."""

    def construct(self, cells):
        return ms.ops.softmax(cells.mean((2, 3), keep_dims=True), 1) * ms.ops.ones_like(cells)


def test_layers_that_look_at_all_of_the_picture_are_not_refused():
    found, _ = traced(Looking(), height=56, width=56)
    assert found.refused == {}
    assert "gate" in found.spatial


TOKEN_MOVES = {
    "two columns": rolled(0, 2),
    "a row": rolled(1, 0),
    "rows flipped": lambda cells: ms.ops.flip(cells, (1,)),
    "scattered": scattered,
}


class OnTokens(nn.Cell):
    """Moves of cells as moves of tokens, rows of eight."""

    def __init__(self, moves):
        super().__init__()
        self.moves = nn.CellList([Move(move, True) for move in moves])
        self.moved = nn.CellList([Flat() for _ in moves])

    def construct(self, tokens):
        cells = tokens.reshape((len(tokens), -1, 8, CHANNELS))
        for move, flat in zip(self.moves, self.moved, strict=True):
            flat(move(cells))
        return tokens


class Flat(nn.Cell):
    def construct(self, cells):
        return cells.reshape((len(cells), -1, CHANNELS))


def test_tokens_behind_the_first_layer_that_lie_elsewhere_are_refused():
    net = Transformer(PLAIN)
    net.placed, net.reordered = nn.Identity(), OnTokens(TOKEN_MOVES.values())
    found, default = traced(net, height=6 * SIDE, width=8 * SIDE)
    refused = [f"reordered.{kind}.{number}" for number in range(len(TOKEN_MOVES)) for kind in ("moves", "moved")]
    assert sorted(found.refused) == sorted(refused)
    assert "they do not lie as in the layers before" in found.refused["reordered.moved.0"]
    assert default == "reordered"


# ------------------------------------------------------------------------------------------------ where it flows


class Branches(nn.Cell):
    """A classifier with one more layer that finishes last: one that nothing uses, or uses without a gradient."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.body = nn.SequentialCell([nn.Conv2d(3, 4, 3, weight_init=tensor(4, 3, 3, 3)), nn.ReLU()])
        self.late = nn.Conv2d(4, 3, 1, weight_init=tensor(3, 4, 1, 1))
        self.head = dense(4, 3)

    def construct(self, x):
        seen = self.body(x)
        logits = self.head(seen.mean((2, 3)))
        late = self.late(seen).mean((2, 3))
        if self.how == "used":
            return logits + late
        if self.how == "stopped":
            return logits + ms.ops.stop_gradient(late)
        return logits + 0 * late if self.how == "times zero" else logits


@pytest.mark.parametrize(
    ("how", "expected"), [("used", "late"), ("unused", "body"), ("stopped", "body"), ("times zero", "body")]
)
def test_the_default_layer_is_the_last_through_which_the_prediction_flows(how, expected):
    found, default = traced(Branches(how))
    assert "late" in found.spatial
    assert default == expected


def test_a_net_through_whose_layers_nothing_flows_has_no_default():
    class Nothing(Branches):
        def construct(self, x):
            self.body(x)
            return self.head(x.mean((2, 3))[:, :1] * ms.Tensor([[1.0, 2.0, 3.0, 4.0]]))

    found, default = traced(Nothing("unused"))
    assert list(found.spatial)
    assert default is None


@pytest.mark.parametrize("how", ["unused", "stopped"])
def test_a_dead_layer_that_is_asked_for_is_refused_by_name(how):
    source = ModelSource("", height=HEIGHT, width=WIDTH, batch_sizes=(1,), gradient_batch_sizes=(1,))
    backend = MindSporeBackend(source, net=Branches(how))
    kind = Kind("layer_gradient", "late")
    failed = backend.warm_up([Forward.kind, kind], lambda line: None)
    assert list(failed) == [kind]
    assert failed[kind].startswith("The prediction does not flow through the layer 'late'")
    assert "device" not in failed[kind]


def test_likeness_to_some_shift_by_chance_refuses_nothing():
    """Leanings to nothing in particular, in the few cells of a last layer."""
    draws = np.random.default_rng(5)
    for _ in range(300):
        halves = np.sign(draws.standard_normal((1, 7, 7)))
        own = 0.4 * draws.standard_normal((7, 7))
        leanings = np.stack([own + 0.1 * draws.standard_normal((7, 7)) for _ in range(2)])
        assert not displacement._is_displaced(leanings, halves, displacement._CHANCE)


def test_a_layer_that_runs_for_some_values_only_is_not_judged():
    def run(values):
        return {"always": values} if values.max() > 1 else {"always": values, "rarely": values}

    watched = SimpleNamespace(run=run)
    layers = [SimpleNamespace(name=name, to_nchw=lambda output: output) for name in ("always", "rarely")]
    halves = np.random.default_rng(1).random((2, 8, 8)) > 0.5
    found = list(displacement._leanings(watched, layers, halves, np.zeros((1, 3, 8, 8), np.float32), "nchw"))
    assert all(set(each) == {"always"} for each in found)
