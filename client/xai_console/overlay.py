"""A map on its picture, as an element of a page; `components/overlay.js` draws it in the browser from the values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from nicegui.element import Element
from nicegui.events import GenericEventArguments

from xai_client.colours import ColourScale
from xai_client.overlay import DEFAULT_ALPHA, DEFAULT_SATURATION
from xai_console.colour_data import colours_url
from xai_console.markup import Html, picture, tag
from xai_console.words import Words

Mode: TypeAlias = Literal["overlay", "map", "picture"]
Box: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Look:
    """How maps are drawn.

    Attributes:
        mode: "overlay": on the picture; "map": alone; "picture": not at all.
        opacity: At the most salient place, 0 to 1.
        saturation: What is left of the picture's own colours under the map, 0 to 1.
        threshold: Part of the scale below which nothing is drawn, 0 to 1.
        frame: Whether the model's frame is outlined, and what lies outside dimmed even without a map.
    """

    mode: Mode = "overlay"
    opacity: float = DEFAULT_ALPHA
    saturation: float = DEFAULT_SATURATION
    threshold: float = 0.0
    frame: bool = False


@dataclass(frozen=True)
class Grid:
    """The values of a map, where the browser gets them.

    Attributes:
        url: Of the values: float32, little-endian, row by row.
        rows: Rows.
        columns: Columns.
    """

    url: str
    rows: int
    columns: int


@dataclass(frozen=True)
class Badge:
    """A few letters in the corner of a map.

    Attributes:
        text: What stands there.
        label: The same with what it is, for those who point at it or do not see it.
    """

    text: str
    label: str


@dataclass(frozen=True)
class Scene:
    """What an overlay shows.

    Attributes:
        picture: URL of the upright picture; None where there is none.
        size: Width and height of the upright picture in its own pixels.
        region: Left, top, right and bottom of what the map covers, in these pixels.
        grid: The map; None where there is none.
        scale: What its colours mean; None where there is no map.
        shaky: Whether the map is not to be relied on; it is then paler and hatched.
        note: What to write on it, such as why there is no map.
        label: What it shows, for those who cannot see it.
        badge: What stands in its corner; None for nothing.
    """

    picture: str | None
    size: tuple[float, float]
    region: Box
    grid: Grid | None = None
    scale: ColourScale | None = None
    shaky: bool = False
    note: str = ""
    label: str = ""
    badge: Badge | None = None


class Overlay(Element, component="components/overlay.js", esm={"xai-saliency": "components/saliency"}):
    """A map on its picture.

    Args:
        scene: What it shows.
        look: How.
        say: The words of the page.
        group: Overlays of one group show their values at the same point of the picture.
        legend: Whether the colours are explained below.
        interactive: Whether the value under the pointer is shown, also by keys.
        zoomable: Whether it can be magnified.
    """

    def __init__(
        self,
        scene: Scene,
        look: Look,
        say: Words,
        *,
        group: str = "",
        legend: bool = True,
        interactive: bool = True,
        zoomable: bool = False,
    ) -> None:
        super().__init__()
        self._scene = scene
        words = {key: say(f"overlay.{key}") for key in ("for", "against", "failed")}
        props: dict[str, Any] = {
            "colours": colours_url(),
            "words": words,
            "group": group,
            "legend": legend,
            "interactive": interactive,
            "zoomable": zoomable,
            "shapes": [],
        }
        for name, value in {**props, **_props(scene), "look": asdict(look)}.items():
            self._props[name] = value

    @property
    def scene(self) -> Scene:
        """What it shows."""
        return self._scene

    def preview(self) -> Html:
        """See `xai_console.preview`."""
        scene = self._scene
        shown = picture(scene.picture, scene.size, "420px") if scene.picture else ""
        note = tag("span", scene.note, classes="map-note") if scene.note else ""
        badge = tag("span", scene.badge.text, classes="map-badge number") if scene.badge else ""
        legend = tag("div", classes="map-legend") if self._props["legend"] and scene.grid is not None else ""
        return tag("figure", tag("div", shown, note, badge, classes="map-stage"), legend, classes="map")

    def show(self, **changes: Any) -> None:
        """Changes what it shows; see `Scene` for the names."""
        self._scene = replace(self._scene, **changes)
        self._set(_props(self._scene))

    def look(self, look: Look) -> None:
        """Changes how it is drawn."""
        self._set({"look": asdict(look)})

    def draw(self, kind: Literal["box", "polygon", ""]) -> None:
        """Has the viewer draw a shape on the picture, or no more."""
        self._set({"drawing": kind})

    def outline(self, shapes: Sequence[dict[str, Any]]) -> None:
        """Shows shapes on the picture: {"kind": "box" or "polygon", "points": [[x, y], ...]} in its pixels."""
        self._set({"shapes": list(shapes)})

    def on_shape(self, callback: Callable[[str, list[list[float]]], Any]) -> None:
        """Calls back with the kind and the points of each shape drawn, in pixels of the upright picture."""

        def drawn(event: GenericEventArguments) -> Any:
            return callback(event.args["kind"], event.args["points"])

        self.on("shape", drawn)

    def on_open(self, callback: Callable[[], Any]) -> None:
        """Calls back when the viewer wants to see it in full size."""
        self.on("open", lambda _: callback(), [])

    def _set(self, props: dict[str, Any]) -> None:
        for name, value in props.items():
            self._props[name] = value
        self.update()


def _props(scene: Scene) -> dict[str, Any]:
    return {
        "picture": scene.picture,
        "size": list(scene.size),
        "region": list(scene.region),
        "map": asdict(scene.grid) if scene.grid is not None else None,
        "scale": asdict(scene.scale) if scene.scale is not None else None,
        "shaky": scene.shaky,
        "note": scene.note,
        "label": scene.label,
        "badge": asdict(scene.badge) if scene.badge is not None else None,
    }
