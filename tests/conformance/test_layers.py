"""Which layers of a net can be explained, and where on the picture their outputs lie."""

import numpy as np
import pytest

from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.device import select_device
from xai_sidecar.backends.mindspore.layers import default_layer, trace_layers
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.source import ModelSource
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
    found = trace_layers(net.set_train(False), examples[:1], height, width, layout)
    return found, default_layer(net, found.spatial, examples, 3)


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
