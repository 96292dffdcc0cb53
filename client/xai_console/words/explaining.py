"""Words of the page that explains a picture now."""

from __future__ import annotations

from typing import Final

WORDS: Final = {
    "explain": ("Explain now", "即时解释"),
    "explain.go": ("Explain", "解释"),
    "explain.stop": ("Stop", "停止"),
    "explain.empty": ("Give the model a picture", "给模型一张图片"),
    "explain.empty.how": (
        "Drop one, paste it, choose a file, or take a sample. It is predicted at once and explained while you watch.",
        "拖入、粘贴或选择文件，或选用样本。预测立即给出，解释随后逐步完善。",
    ),
    "explain.samples": ("Or choose one of the newest samples", "或选择最近的样本"),
    "picture": ("Picture", "图片"),
    "drop.title": ("Drop, paste or choose a picture", "拖入、粘贴或选择图片"),
    "drop.hint": ("JPEG, PNG, WebP, GIF, BMP or TIFF", "JPEG、PNG、WebP、GIF、BMP 或 TIFF"),
    "drop.busy": ("Sending…", "正在发送…"),
    "drop.too_large": ("The picture is larger than {size} MiB", "图片大于 {size} MiB"),
    "explainers": ("Explainers", "解释器"),
    "auto.what": (
        "The explainer that was measured to be the best and fits the budget; it says why",
        "评测最优且符合预算的解释器，并说明原因",
    ),
    "targets": ("Classes", "类别数"),
    "targets.how": ("Explain this many of the most probable classes", "解释概率最高的若干个类别"),
    "budget": ("Budget (s)", "预算（秒）"),
    "budget.how": (
        "Longest time for each explanation; the best map so far is then shown. Empty: until it is done",
        "每个解释的最长时间，届时显示目前最好的热图。留空：直到完成",
    ),
    "seed": ("Seed", "随机种子"),
    "seed.how": (
        "Equal seeds give equal maps. Empty: the server draws one",
        "相同种子得到相同热图。留空：由服务器随机生成",
    ),
    "repeat": ("The same, without the console", "在控制台之外重复此操作"),
    "prediction": ("Prediction", "预测"),
    "prediction.how": ("Choose a class to see what speaks for it", "选择类别以查看其依据"),
    "ood": (
        "{percentile} % of held-out training pictures are less like the training data than this one",
        "有 {percentile} % 的留出训练图片比这张更不像训练数据",
    ),
    "maps": ("Where the model looks", "模型关注之处"),
    "maps.corner": ("In the corner of each map: {metric}", "每张热图角上：{metric}"),
    "computing": ("Computing…", "计算中…"),
    "stopped": ("Stopped before there was a map", "在得到热图前已停止"),
    "passes.of": ("{done} of {planned} passes", "推理 {done} / {planned} 次"),
    "standard_error": ("Standard error {value}", "标准误差 {value}"),
    "remaining": ("About {seconds} s left", "约剩 {seconds} 秒"),
    "took": ("Passes: {passes} · {seconds} s", "推理次数：{passes} · {seconds} 秒"),
}
