"""The keys of `[model.input]`: what the net takes, and how pictures become that."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from xai_sidecar.config.section import Section
from xai_sidecar.imaging import InputSpec

Size = Annotated[int, Field(ge=1, le=4096, strict=True)]


class InputConfig(Section):
    """What the net takes, and how pictures become that."""

    size: Size | tuple[Size, Size] = Field(default=224, description="Side, or [height, width], of the model input.")
    channels: Literal[1, 3] = Field(default=3, description="1 for grey, 3 for RGB.")
    layout: Literal["nchw", "nhwc"] = Field(default="nchw", description="Axes of the net's input.")
    resize: Size | tuple[Size, Size] | None = Field(
        default=None,
        description="What pictures are scaled to before the centre crop. A number is the length of the input's shorter "
        "side: the picture keeps its proportions and covers the input scaled up by as much. [height, width] must be at "
        "least the size. Default: the size.",
    )
    stretch: bool = Field(default=False, description="Scale to `resize` exactly, giving up the picture's proportions.")
    letterbox: bool = Field(
        default=False,
        description="Scale the whole picture to fit in the input, its proportions kept, and fill the rest with "
        "mean_colour; without resize and stretch.",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(
        default="bilinear", description="How pictures are resized."
    )
    exact_decoding: bool = Field(
        default=False,
        description="Decode every file at full scale. Otherwise a JPEG much larger than what it is scaled to is "
        "decoded at a half, a quarter or an eighth of its sides, at least four times as large as that, which takes "
        "half the time or less and moves probabilities by less than 0.01; with interpolation nearest, never. Quality "
        "and OoD nets stay valid when it is changed.",
    )
    mean: float | list[float] = Field(
        default=[0.485, 0.456, 0.406],
        description="Subtracted from each channel of a picture scaled to [0, 1]; one number for all, or one each.",
    )
    std: float | list[float] = Field(
        default=[0.229, 0.224, 0.225], description="What each channel is then divided by; above 0."
    )
    mean_colour: float | list[float] = Field(
        default=[0.485, 0.456, 0.406],
        description="What pictures are covered with by explainers and metrics, each channel in [0, 1]: the mean colour "
        "of what the model was trained on, wherever its normalisation stands. Grey models: 0.5.",
    )

    @model_validator(mode="before")
    @classmethod
    def _grey_default(cls, data: Any) -> Any:
        """ImageNet's statistics have three channels; a grey model gets 0 and 1 instead, and a middle grey."""
        if isinstance(data, dict) and data.get("channels") == 1:
            return {"mean": 0.0, "std": 1.0, "mean_colour": 0.5, **data}
        return data

    @model_validator(mode="after")
    def _fits(self) -> InputConfig:
        self.spec()  # raises a ConfigError of its own
        return self

    def _resize(self) -> tuple[int, int]:
        height, width = _pair(self.size)
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        scale = self.resize / min(height, width)
        return round(height * scale), round(width * scale)

    def spec(self) -> InputSpec:
        """The same, as imaging wants it."""
        height, width = _pair(self.size)
        resize_height, resize_width = self._resize()
        return InputSpec(
            channels=self.channels,
            height=height,
            width=width,
            resize_height=resize_height,
            resize_width=resize_width,
            stretch=self.stretch,
            letterbox=self.letterbox,
            interpolation=self.interpolation,
            mean=_each(self.mean, self.channels),
            std=_each(self.std, self.channels),
            mean_colour=_each(self.mean_colour, self.channels),
            exact_decoding=self.exact_decoding,
        )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _each(value: float | list[float], count: int) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, list) else (value,) * count
