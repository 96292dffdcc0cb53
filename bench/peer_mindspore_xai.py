"""mindspore-xai at work, told by lines on stdin what to do; see peers.py. It runs in an environment of its own."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys

if importlib.util.find_spec("peer_shim"):
    importlib.import_module("peer_shim")

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore_xai.explainer import RISE, GradCAM

factory, layer, masks = sys.argv[1:]
version = importlib.metadata.version
importlib.metadata.version = lambda name: "0" if name == "xai-sidecar" else version(name)
module, name = factory.split(":")
net = getattr(importlib.import_module(module), name)(num_classes=1000).set_train(False)
image = ms.Tensor(np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32))
gradcam = GradCAM(net, layer=layer)
rise = RISE(net, activation_fn=nn.Softmax())
rise._num_masks = int(masks)
tasks = {"gradcam": gradcam, "rise": rise}
for line in sys.stdin:
    tasks[line.strip()](image, 7, show=False).asnumpy()
    print(f"done {line.strip()}", flush=True)
