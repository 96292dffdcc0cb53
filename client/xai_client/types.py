"""What calls return: predictions, explanations, and the events of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from xai_client.colours import FloatArray
from xai_client.errors import ArgumentError, MapWithheldError
from xai_client.overlay import DEFAULT_ALPHA, DEFAULT_SATURATION, Drawn, Looks, draw
from xai_client.panel import DEFAULT_WIDTH, Tile, drawable, panel, with_legend
from xai_client.picture import ImageLike, to_picture

ParameterValue: TypeAlias = int | float | str | bool | None

_WITHHELD = {
    "zero_gradient": "the class has no gradient at this picture, so the method can say nothing about it",
    "not_finite": "it had values that are NaN or infinite",
    "no_ood_range": "the OoD net finds the picture no more of an inlier than a blank one",
}
_WITHOUT_MAPS = {
    "skipped": "its condition did not hold, or no class counts as predicted",
    "truncated": "its budget ended before there was one",
}


class Region(NamedTuple):
    """A rectangle on the upright picture in pixels with fractions; right and bottom exclusive."""

    left: float
    top: float
    right: float
    bottom: float


class PictureSize(NamedTuple):
    """Size of the upright picture in pixels, in the order of PIL's `Image.size`."""

    width: int
    height: int


@dataclass(frozen=True)
class ClassScore:
    """One class and how sure the model is of it.

    Attributes:
        class_id: Class id.
        label: Its label.
        probability: Softmax or sigmoid of the logit, in [0, 1]; of very different logits both may be rounded to 1 or 0.
        logit: The net's output before the activation.
    """

    class_id: int
    label: str
    probability: float
    logit: float


@dataclass(frozen=True, eq=False)
class SaliencyMap:
    """The saliency of every pixel of the model input for one class.

    Attributes:
        class_id: The class explained.
        label: Its label.
        status: "ok"; "all_zero"; "unreliable": mostly noise, or mostly guessed, since too few passes were made, see
            `warning`; or "zero_gradient", "not_finite" or "no_ood_range", which come without a map.
        values: The map, float32 (H, W); None where it is withheld.
        standard_error: Relative standard error where the map is an estimate; None for exact methods.
        standard_error_bound: The standard error above which a map is unreliable; None for exact methods.
        precision_error: The part of the standard error that comes from passes below float32; None without these.
    """

    class_id: int
    label: str
    status: str
    values: FloatArray | None = field(repr=False)
    standard_error: float | None
    standard_error_bound: float | None = None
    precision_error: float | None = None

    @property
    def reliable(self) -> bool:
        """Whether there is a map that can be relied on."""
        return self.values is not None and self.status in ("ok", "all_zero")

    @property
    def withheld(self) -> str:
        """Why it has no values, as of `status`; "not_kept" of a sample's map that once had some; empty if it has."""
        if self.values is not None:
            return ""
        return "not_kept" if self.status in ("ok", "all_zero") else self.status

    @property
    def warning(self) -> str:
        """Why the map cannot be relied on, though it was sent, in a sentence; empty if it can, or was withheld."""
        if self.reliable or self.values is None:
            return ""
        error, bound = self.standard_error, self.standard_error_bound
        if error is not None and bound is not None and error > bound:
            why = f"mostly noise, its standard error of {error:.3g} is above {bound:.2g}"
        else:
            why = "too few passes were made for it"
        return f"the map of class {self.class_id} ({self.label}) is unreliable: {why}; more passes make it better"

    @property
    def saliency(self) -> FloatArray:
        """The map, float32 (H, W), in the frame of the model input. Higher means more important for the class.

        One whose status is "unreliable" is returned, too: look at `reliable`.

        Raises:
            MapWithheldError: The map was not sent; the message says why.
        """
        if self.values is None:
            why = _WITHHELD.get(self.status, f"its status is {self.status}")
            raise MapWithheldError(
                f"the map of class {self.class_id} ({self.label}) was withheld: {why}", reason=self.status
            )
        return self.values


@dataclass(frozen=True)
class Advantage:
    """By how much an explainer is better than something else, on the same pictures.

    Attributes:
        over: Name of what it is better than: a control, or another explainer.
        mean: Mean difference of composite scores, -1 to 1.
        confidence_half_width: Half the width of its 95 % confidence interval; NaN where there are too few pictures.
    """

    over: str
    mean: float
    confidence_half_width: float


@dataclass(frozen=True)
class AutoChoice:
    """Why "auto" chose the explainer that it did.

    Attributes:
        reason: Why, in a sentence or two.
        kind: "best": the best measured one of those that fit the budget; "best_of_class": the one measured to be the
            best for the class explained; or "fallback": the configured one, since too little has been measured, nothing
            measured fits the budget, or no explainer beats the controls.
        composite_score: How good its maps are all in all, 0 to 1 with 1 for the best; None if not known.
        advantage: By how much it beats the closest control; None if it was not compared.
    """

    reason: str
    kind: str
    composite_score: float | None
    advantage: Advantage | None = None


@dataclass(frozen=True, eq=False)
class Explanation:
    """One explanation of one prediction.

    Attributes:
        name: Its name in the request.
        explainer: The explainer that ran; for "auto", the one chosen.
        status: "complete"; "truncated": cut short by its budget or by the call's deadline, the maps are the best so
            far, and there are none if a budget ended before there were any; "skipped": its condition did not hold, or
            no targets were given and no class of a multi-label model counts as predicted, and there are no maps; or
            "partial": a better version follows (in a stream only).
        status_message: Why it was skipped, refused or truncated; empty when complete.
        maps: One map for each target, in the order of the targets.
        parameters: The parameters really used. Whole numbers are ints.
        seed: The seed really used; None where nothing is random.
        passes: Rows that went through the model for it.
        truncated: Whether the budget or the deadline ended it before it was done, as the status "truncated" says.
        elapsed: Seconds from being submitted to being done.
        region: The part of the picture that the maps cover; None for a model input.
        picture_size: Size of the upright picture; None for a model input.
        choice: Why this explainer; None unless "auto" was asked for.
        precision: What its passes were computed in, as "float32" or "bfloat16"; empty if the server does not say.
    """

    name: str
    explainer: str
    status: str
    status_message: str
    maps: tuple[SaliencyMap, ...]
    parameters: Mapping[str, ParameterValue]
    seed: int | None
    passes: int
    truncated: bool
    elapsed: float
    region: Region | None
    picture_size: PictureSize | None
    choice: AutoChoice | None = None
    precision: str = ""

    @property
    def targets(self) -> tuple[int, ...]:
        """Class ids of the targets, in the order of `maps`."""
        return tuple(each.class_id for each in self.maps)

    @property
    def saliency(self) -> FloatArray:
        """The first target's map, float32 (H, W), in the frame of the model input.

        Raises:
            MapWithheldError: There is none; the message says why.
        """
        return self._map(None).saliency

    @property
    def saliencies(self) -> FloatArray:
        """All maps, float32 (T, H, W), in the order of `targets`.

        Raises:
            MapWithheldError: There are none, or one of them was withheld; `maps` gives the others.
        """
        self._map(None)
        return np.stack([each.saliency for each in self.maps])

    @property
    def reliable(self) -> bool:
        """Whether there are maps, and all of them can be relied on."""
        return bool(self.maps) and all(each.reliable for each in self.maps)

    @property
    def standard_error(self) -> float | None:
        """Relative standard error of the first target's map; None for exact methods and where there is no map."""
        return self.maps[0].standard_error if self.maps else None

    def overlay(
        self,
        image: ImageLike,
        target: int | None = None,
        alpha: float = DEFAULT_ALPHA,
        colormap: str | None = None,
        *,
        saturation: float = DEFAULT_SATURATION,
        own_scale: bool = False,
        legend: bool = False,
    ) -> Image.Image:
        """Lays a map on the picture that was predicted, exactly over the part that the model saw.

        The rest of the picture is dimmed, and the part below the map loses most of its colours to it. The map is
        coloured from its lowest value (not at all) to the one that 99.5 % of its pixels stay below (in full), so that a
        few outliers do not hide the rest. The maps of all targets share what a colour is worth, that of the one which
        reaches farthest, so that what weighs little for one class looks so beside another. Maps with negative values of
        more than 1 % of the highest are signed: zero is not coloured, and strength goes by magnitude, red for the
        class, blue against it. An unreliable map is paler and hatched, and says so in its lower left corner.

        Args:
            image: The picture, in any of the forms that `predict` takes but a model input.
            target: Class id whose map to show. Default: the first target.
            alpha: Opacity at the most salient pixel, 0 to 1.
            colormap: "heat", "inferno", "turbo" or "diverging". Default: "diverging" for signed maps, else "heat". The
                first three show only the positive part of a map with negative values.
            saturation: What is left of the picture's own colours under the map, 0 (grey) to 1 (all).
            own_scale: Whether the map's own values alone make its scale, as where the other targets do not matter.
            legend: Whether to say below the picture which explainer and class it is, and what the colours mean.

        Returns:
            A PIL image, RGB, upright, as wide and high as the picture; with a legend, higher.

        Raises:
            MapWithheldError: There is no such map; the message says why.
            PictureSizeError: The picture is not of the size that was predicted; for a model input, that of the map.
            ImageError: It cannot be decoded, or is a model input.
            ArgumentError: `target` was not explained, or another argument is wrong.
        """
        drawn = self._drawn(image, target, Looks(alpha, colormap, saturation, own_scale))
        if not legend:
            return drawn.image
        return with_legend(drawn.image, self._tile(drawn, target, ()))

    def panel(
        self,
        image: ImageLike,
        targets: Sequence[int] | None = None,
        *,
        alpha: float = DEFAULT_ALPHA,
        colormap: str | None = None,
        saturation: float = DEFAULT_SATURATION,
        own_scale: bool = False,
        columns: int | None = None,
        width: int = DEFAULT_WIDTH,
    ) -> Image.Image:
        """Shows the maps of several targets side by side, with a legend each; one that was withheld says why.

        Args:
            image: As of `overlay`.
            targets: Class ids, in the order in which they are shown. Default: all.
            alpha: As of `overlay`.
            colormap: As of `overlay`.
            saturation: As of `overlay`.
            own_scale: As of `overlay`.
            columns: Pictures in a row. Default: all up to four; of more, rows as equal as can be.
            width: Width of each in pixels, at least 96.

        Returns:
            A PIL image, RGB.

        Raises:
            MapWithheldError: There are no maps at all; the message says why.
            ArgumentError: As of `overlay`.
        """
        self._map(None)
        chosen = self.targets if targets is None else targets
        picture = to_picture(image)
        looks = Looks(alpha, colormap, saturation, own_scale)
        return panel([self.tile(picture, each, looks, ()) for each in chosen], columns, width)

    def tile(self, picture: Image.Image, target: int | None, looks: Looks, lines: Sequence[str]) -> Tile:
        """One picture of a panel: the map of a target, or in words why there is none.

        Args:
            picture: As `to_picture` gives it.
            target: Class id; None for the first one.
            looks: How it is drawn.
            lines: What else to say of it.
        """
        try:
            return self._tile(self._drawn(picture, target, looks), target, lines)
        except MapWithheldError as error:
            blank = picture.convert("L").convert("RGB")
            return Tile(blank, self.name, (f"no map: {error.reason.replace('_', ' ')}", *lines))

    def _tile(self, drawn: Drawn, target: int | None, lines: Sequence[str]) -> Tile:
        shown = self._map(target)
        about = [drawable(shown.label, "") or f"class {shown.class_id}", *lines]
        if shown.standard_error is not None:
            about.insert(1, f"standard error {shown.standard_error:.2g}" + ("" if shown.reliable else ", unreliable"))
        return Tile(drawn.image, self.name, about, drawn.scale)

    def _drawn(self, image: ImageLike, target: int | None, looks: Looks) -> Drawn:
        shown = self._map(target)
        saliency, note = shown.saliency, "" if shown.reliable else shown.status
        # The server knows no picture of a model input: only one of the map's own size surely lies under it.
        size = self.picture_size or (saliency.shape[1], saliency.shape[0])
        others = (each.values for each in self.maps if each is not shown and not looks.own_scale)
        return draw(
            image,
            saliency,
            self.region,
            size,
            looks.alpha,
            looks.colormap,
            note,
            beside=[each for each in others if each is not None],
            saturation=looks.saturation,
        )

    def _map(self, target: int | None) -> SaliencyMap:
        if not self.maps:
            why = self.status_message or _WITHOUT_MAPS.get(self.status, "no class qualified as a target")
            reason = self.status if self.status in _WITHOUT_MAPS else "no_targets"
            raise MapWithheldError(f"the explanation {self.name!r} has no map: {why}", reason=reason)
        for each in self.maps:
            if target is None or each.class_id == target:
                return each
        raise ArgumentError(
            f"class {target!r} was not explained; the targets are {', '.join(map(str, self.targets))}", field="target"
        )


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says of one picture.

    Attributes:
        request_id: Id of the request, for `report_ground_truth` and for the server's logs.
        model_version: Version of the model that answered.
        classes: The top_k classes, most probable first, by falling logit.
        ood_score: Raw out-of-distribution score, higher means more of an inlier; None if not asked for.
        ood_percentile: Share of held-out training pictures with a lower score, 0 to 100; None if not asked for.
        explanations: The explanations by name, in the order of the request.
        region: The part of the picture that the model saw; None for a model input.
        picture_size: Size of the upright picture; None for a model input.
        sampled: Whether the request was sampled for measuring the quality of its explanations; only then
            `report_ground_truth` takes its truth.
    """

    request_id: str
    model_version: str
    classes: tuple[ClassScore, ...]
    ood_score: float | None
    ood_percentile: float | None
    explanations: Mapping[str, Explanation]
    region: Region | None
    picture_size: PictureSize | None
    sampled: bool = False

    def panel(
        self,
        image: ImageLike,
        explanations: Sequence[str] | None = None,
        target: int | None = None,
        *,
        scores: Mapping[str, Sequence[str]] | None = None,
        alpha: float = DEFAULT_ALPHA,
        colormap: str | None = None,
        saturation: float = DEFAULT_SATURATION,
        columns: int | None = None,
        width: int = DEFAULT_WIDTH,
    ) -> Image.Image:
        """Shows the picture and what explains it side by side, with a legend each.

        Args:
            image: The picture, in any of the forms that `predict` takes but a model input.
            explanations: Names, in the order in which they are shown. Default: all, in the order of the request.
            target: Class id whose maps to show. Default: each explanation's first target.
            scores: Lines to write below an explanation, by its name, such as how good its explainer was measured to be.
            alpha: As of `Explanation.overlay`.
            colormap: As of `Explanation.overlay`.
            saturation: As of `Explanation.overlay`.
            columns: Pictures in a row. Default: all up to four; of more, rows as equal as can be.
            width: Width of each in pixels, at least 96.

        Returns:
            A PIL image, RGB; an explanation without a map is a grey picture that says why.

        Raises:
            PictureSizeError: The picture is not of the size that was predicted.
            ImageError: It cannot be decoded, or is a model input.
            ArgumentError: There is no such explanation or target, or another argument is wrong.
        """
        chosen = list(self.explanations) if explanations is None else explanations
        if unknown := [name for name in chosen if name not in self.explanations]:
            there = ", ".join(self.explanations) or "none"
            raise ArgumentError(f"there is no explanation {unknown[0]!r}; there are: {there}", field="explanations")
        likely = [f"{drawable(each.label, f'class {each.class_id}')} {each.probability:.0%}" for each in self.classes]
        picture = to_picture(image)
        tiles = [Tile(picture, "picture", likely[:3])]
        looks = Looks(alpha, colormap, saturation)
        for name in chosen:
            tiles.append(self.explanations[name].tile(picture, target, looks, (scores or {}).get(name, ())))
        return panel(tiles, columns, width)


@dataclass(frozen=True, eq=False)
class Predicted:
    """The first event of a stream: the prediction, without explanations.

    Attributes:
        request_id: Id of the request.
        prediction: What the model says of the picture.
    """

    request_id: str
    prediction: Prediction


@dataclass(frozen=True)
class Progress:
    """An explanation is on its way.

    Attributes:
        request_id: Id of the request.
        name: Name of the explanation.
        passes: Passes done.
        planned_passes: Passes planned; with a tolerance, at most these.
        standard_error: Relative standard error so far; None where there is none.
        remaining: Estimated seconds left; None if not known.
    """

    request_id: str
    name: str
    passes: int
    planned_passes: int
    standard_error: float | None
    remaining: float | None


@dataclass(frozen=True, eq=False)
class Explained:
    """A version of an explanation has come.

    Attributes:
        request_id: Id of the request.
        explanation: The explanation; `final` tells whether a better one follows.
    """

    request_id: str
    explanation: Explanation

    @property
    def final(self) -> bool:
        """Whether no better version follows."""
        return self.explanation.status != "partial"


@dataclass(frozen=True)
class Finished:
    """The last event of a stream.

    Attributes:
        request_id: Id of the request.
    """

    request_id: str


Event: TypeAlias = Predicted | Progress | Explained | Finished
"""One event of a stream."""
