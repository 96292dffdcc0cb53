"""In Chinese, what the server tells in English and says the kind of: explainers, metrics, choices, errors.

What is not here is shown in the server's own words. `{said}` is these.
"""

from __future__ import annotations

from typing import Final

TOLD: Final = {
    # Explainers, and their parameters.
    "gradient": "目标类别 logit 对输入的梯度（Simonyan 等，2013）。",
    "guided_backprop": "在每个 ReLU 处，除其自身的掩码外，再只保留梯度的正值（Springenberg 等，2014）。",
    "deconvolution": "在每个 ReLU 处只保留梯度的正值，以代替其自身的掩码（Zeiler、Fergus，2014）。",
    "gradcam": "某一层的梯度加权类激活图（Selvaraju 等，2017）。",
    "occlusion": "遮挡图片的一个窗口时概率的下降，带正负号（Zeiler、Fergus，2014）。",
    "rise": "随机化输入采样：在随机掩码下哪些像素伴随高概率（Petsiuk 等，2018）。",
    "rise_plus": "RISE，每个掩码按遮挡后的图片有多像训练数据加权。",
    "parameter.normalization": "数值如何缩放：none 不缩放，max 除以最大绝对值。",
    "parameter.aggregation": "梯度各通道如何合成一张热图：取绝对值的最大值或总和。",
    "parameter.layer": "要解释其输出的层，按网络中的名称。",
    "parameter.window_size": "窗口边长，以模型输入的像素计。不设：短边的 1/32，3 到 32。",
    "parameter.stride": "相邻窗口的间隔像素数，不超过 window_size。不设：短边的 1/32，1 到 32。",
    "parameter.fill": "用什么遮挡：zero 为 model.input.mean_colour，mean 为图片自身的平均颜色，"
    "或以窗口边长一半为标准差模糊的图片。",
    "parameter.masks": "最多使用的掩码数。",
    "parameter.grid_size": "掩码粗网格每边的格数。不设：7，像素较少的输入更少。",
    "parameter.keep_probability": "每个格子被保留的概率。",
    "parameter.tolerance": "热图的相对标准误差不超过此值时即停止；0 表示用完所有掩码。",
    "parameter.estimator": "掩码如何合成热图：regression 以更少掩码得到同样的热图，plain 为论文中的平均。",
    # Metrics and controls.
    "faithfulness/srg": "先遮挡最不显著的像素与先遮挡最显著的像素相比，概率能多保持多久（Blücher 等，2024）。",
    "faithfulness/naive": "像素组的显著性与遮挡它们时概率下降之间的相关性（Alvarez-Melis、Jaakkola，2018）。",
    "faithfulness/deletion_auc": "逐步遮挡最显著的像素时的平均概率（Petsiuk 等，2018）。",
    "faithfulness/insertion_auc": "逐步显露最显著的像素时的平均概率（Petsiuk 等，2018）。",
    "faithfulness/road": "去掉最不显著的像素时的概率比去掉最显著的像素时高出多少，取其一半；"
    "去掉的像素由邻近像素填补（Rong 等，2022）。",
    "localization/pointing_game": "最显著的像素是否落在（或几乎落在）该类别的目标上（Zhang 等，2016）。",
    "localization/iosr": "显著区域中落在该类别目标上的部分（Li 等，2020）。",
    "class_sensitivity": "最可能与最不可能的类别的热图有多不同（Li 等，2020）。",
    "robustness": "给图片加噪声时，热图的最大变化有多小（Yeh 等，2019）。",
    "control/random": "噪声，每张图片、每个类别重新抽取。",
    "control/fixed": "噪声，每个样本抽取一次，所有类别相同。",
    "control/blob": "图片正中的高斯斑。",
    "control/edges": "图片的边缘（Sobel 梯度幅值）。",
    # What auto makes of it.
    "choice.best": "在已充分评测的解释器中综合评分最高（{score}）{advantage}。",
    "choice.best_of_class": "对此类别综合评分最高（{score}）{advantage}。",
    "choice.fallback": "采用配置中指定的解释器：评测尚不充分、没有评测过的解释器符合预算，或没有解释器优于对照。",
    "choice.advantage": "；比最接近的对照 {over} 高 {mean} ± {half}（95 % 置信）",
    "objection.chance": "未能确定优于 {over}：相差 {mean} ± {half}（95 % 置信），可能出于偶然",
    "objection.veto": "在一项否决指标上不如随机噪声：{said}",
    # Alerts that the server tells itself, and what to do.
    "served.XaiNoExplainerBeatsControls": "没有任何解释优于对模型一无所知的热图。",
    "served.XaiMapsDrifted": "热图已与服务器启动时不同：{said}",
    "served.XaiOodShareHigh": "许多图片不像训练图片：{said}",
    "advice.XaiNoExplainerBeatsControls": (
        "不要把热图当作解释展示。检查配置中的图片预处理是否与训练时一致，以及是哪项指标如此表明。"
    ),
    "advice.XaiMapsDrifted": "并排查看现在与当时的样本：流量、相机或预处理已改变。",
    "advice.XaiOodShareHigh": "先列出离群图片，看看它们有何共同点。",
    # Why there is no map, or not the best one.
    "status.skipped": "已跳过：{said}",
    "status.truncated": "提前结束：{said}",
    "unavailable": "不可用：{said}",
    # What may not be meant of a truth.
    "truth.doubt": "请核对：{said}",
    # Errors, by the status of the call; "image" is of a picture that cannot be read.
    "error.INVALID_ARGUMENT": "服务器认为请求有误：{said}",
    "error.NOT_FOUND": "服务器上没有（或不再保留）所请求的内容：{said}",
    "error.FAILED_PRECONDITION": "此模型或配置无法做到：{said}",
    "error.UNIMPLEMENTED": "此服务器不支持该调用：{said}",
    "error.UNAUTHENTICATED": "服务器要求身份凭据：{said}",
    "error.PERMISSION_DENIED": "没有权限：{said}",
    "error.RESOURCE_EXHAUSTED": "服务器繁忙，请稍后再试：{said}",
    "error.DEADLINE_EXCEEDED": "超时：{said}",
    "error.UNAVAILABLE": "服务器没有响应：{said}",
    "error.INTERNAL": "服务器或其设备出错：{said}",
    "error.OUT_OF_RANGE": "超出范围：{said}",
    "error.ALREADY_EXISTS": "已存在：{said}",
    "error.CANCELLED": "调用已取消：{said}",
    "error.ABORTED": "服务器中止了调用：{said}",
    "error.DATA_LOSS": "数据丢失或损坏：{said}",
    "error.UNKNOWN": "服务器出错，原因不明：{said}",
    "error.image": "无法读取此图片：{said}",
    "error.": "出错：{said}",
}
