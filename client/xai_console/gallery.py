"""Maps side by side, drawn by the same choices of the viewer, which the URL keeps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from nicegui import ui

from xai_client.colours import COLORMAPS, Extent, FloatArray
from xai_console.overlay import Look, Mode, Overlay, Scene
from xai_console.page import Page
from xai_console.parts import Menu, button, checkbox, div, fill_once, icon_button, select, slider, text, toggle
from xai_console.ranges import RANGE_MODES, SHARINGS, RangeMode, Sharing, scale_by


@dataclass(eq=False)
class Hung:
    """A map in the gallery.

    Attributes:
        overlay: Where it is drawn.
        extent: What of its values its scale depends on; None where there is none.
        group: Maps of the same kind, such as of one explainer, which may share a scale.
    """

    overlay: Overlay
    extent: Extent | None
    group: str


class Gallery:
    """Holds maps, and draws them anew whenever the viewer chooses otherwise.

    Args:
        page: Whose URL keeps the choices.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._hung: list[Hung] = []
        state = page.state
        self._look = Look(
            mode=cast(Mode, state["view"]) if state.get("view") in get_args(Mode) else Look.mode,
            opacity=page.number("opacity", Look.opacity, 0, 1),
            saturation=page.number("saturation", Look.saturation, 0, 1),
            threshold=page.number("threshold", Look.threshold, 0, 1),
            frame=state.get("frame") == "1",
        )
        self._range: RangeMode = next((each for each in RANGE_MODES if each == state.get("range")), "auto")
        self._sharing: Sharing = next((each for each in SHARINGS if each == state.get("scale")), "explainer")
        self._colours: str | None = next((each for each in COLORMAPS if each == state.get("colours")), None)
        self._own = (page.number("low", -1, -1e9, 1e9), page.number("high", 1, -1e9, 1e9))

    # ------------------------------------------------------------------------------------------------ maps

    def hang(self, scene: Scene, values: FloatArray | None, group: str, *, beside: str = "all") -> Hung:
        """Adds a map to the page, where the page is being made.

        Args:
            scene: What it shows.
            values: Its values; None where there is none.
            group: See `Hung.group`.
            beside: Which maps show their values at the same point of the picture: all of the same name.
        """
        overlay = Overlay(scene, self._look, self._page.say, group=beside)
        hung = Hung(overlay, None if values is None else Extent(values), group)
        overlay.on_open(lambda: self._enlarge(hung))
        self._hung.append(hung)
        self._rescale(hung)
        return hung

    def change(self, hung: Hung, values: FloatArray | None, **scene: Any) -> None:
        """Shows a better map, or another one, in the same place."""
        hung.extent = None if values is None else Extent(values)
        hung.overlay.show(**scene)
        self._rescale(hung)

    def forget(self, hung: Hung) -> None:
        """Forgets a map; whoever made the element takes it down."""
        self._hung.remove(hung)

    def clear(self) -> None:
        """Forgets all maps; whoever made the elements takes them down."""
        self._hung.clear()

    def _rescale(self, changed: Hung | None = None) -> None:
        """Makes the scale of each map anew; where only one has changed, of those that share theirs with it."""
        for each in self._hung:
            if each.extent is None or (changed is not None and each is not changed and not self._shares(each, changed)):
                continue
            beside = [one.extent for one in self._hung if one is not each and self._shares(one, each)]
            shared = [one for one in beside if one is not None]
            scale = scale_by(self._range, each.extent, shared, self._colours, self._own)
            if scale != each.overlay.scene.scale:
                each.overlay.show(scale=scale)

    def _shares(self, one: Hung, other: Hung) -> bool:
        return self._sharing == "all" or (self._sharing == "explainer" and one.group == other.group)

    # -------------------------------------------------------------------------------------------- controls

    def controls(self) -> None:
        """Adds the viewer's choices to the page."""
        say = self._page.say
        views = {mode: say(f"view.{mode}") for mode in get_args(Mode)}
        with div("row looks"):
            toggle(say("view"), views, self._look.mode, lambda mode: self._change(mode=mode))
            slider(say("opacity"), self._look.opacity, 0, 1, 0.05, lambda value: self._change(opacity=value))
            slider(say("threshold"), self._look.threshold, 0, 1, 0.01, lambda value: self._change(threshold=value))
            with button(say("more"), lambda: None, "tune"), Menu().classes("looks-menu") as menu:
                more = div("stack looks-more")

        def opened() -> None:
            if fill_once(more, self._more):
                menu.run_method("updatePosition")

        menu.on_value_change(opened)

    def _more(self) -> None:
        say = self._page.say
        slider(say("saturation"), self._look.saturation, 0, 1, 0.05, lambda value: self._change(saturation=value))
        ranges = {mode: say(f"range.{mode}") for mode in RANGE_MODES}
        select(say("range"), ranges, self._range, lambda event: self._set_range(event.value))
        with div("row") as self._ends:
            for place, name in enumerate(("low", "high")):
                field = ui.number(
                    say(name),
                    value=self._own[place],
                    on_change=lambda event, place=place: self._set_own(place, event.value),
                )
                field.props("dense outlined").classes("short-field")
        self._ends.set_visibility(self._range == "own")
        sharings = {each: say(f"scale.{each}") for each in SHARINGS}
        select(say("scale"), sharings, self._sharing, lambda event: self._set_sharing(event.value))
        colours = {"auto": say("colours.auto"), **{each: say(f"colours.{each}") for each in COLORMAPS}}
        select(say("colours"), colours, self._colours or "auto", lambda event: self._set_colours(event.value))
        checkbox(say("frame"), self._look.frame, lambda value: self._change(frame=value))

    def _change(self, **choices: Any) -> None:
        self._look = replace(self._look, **choices)
        for each in self._hung:
            each.overlay.look(self._look)
        named = {"mode": "view"}
        if "frame" in choices:
            choices["frame"] = "1" if choices["frame"] else None
        self._page.remember(**{named.get(key, key): value for key, value in choices.items()})

    def _set_range(self, mode: RangeMode) -> None:
        self._range = mode
        self._ends.set_visibility(mode == "own")
        self._page.remember(range=mode)
        self._rescale()

    def _set_own(self, place: int, value: float | None) -> None:
        if value is None:
            return
        self._own = (float(value), self._own[1]) if place == 0 else (self._own[0], float(value))
        self._page.remember(low=self._own[0], high=self._own[1])
        self._rescale()

    def _set_sharing(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._page.remember(scale=sharing)
        self._rescale()

    def _set_colours(self, colours: str) -> None:
        self._colours = None if colours == "auto" else colours
        self._page.remember(colours=self._colours)
        self._rescale()

    def _enlarge(self, hung: Hung) -> None:
        """Shows a map in full size, where it can be magnified."""
        say = self._page.say
        with ui.dialog() as dialog, ui.card().classes("large"):
            with div("tile-head"):
                text(hung.overlay.scene.label, "tile-name", "h2")
                text(say("zoom"), "hint")
                div("grow")
                icon_button("close", say("close"), dialog.close)
            Overlay(hung.overlay.scene, self._look, say, zoomable=True, group="large")
        dialog.on("hide", dialog.delete)
        dialog.open()
