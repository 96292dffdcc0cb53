"""The keys of the config file that say when explanations have drifted."""

from __future__ import annotations

from pydantic import Field

from xai_sidecar.config.section import Section


class DriftConfig(Section):
    """Comparing maps with those of a while ago, without a pass through the model."""

    enabled: bool = Field(default=True, description="Whether maps that are made anyway are compared with former ones.")
    window: int = Field(
        default=100,
        ge=20,
        le=1000,
        description="Maps of an explainer in the reference window, the first that there are, and in the current one, "
        "the newest. With more of them less is beyond chance.",
    )
    spacing_seconds: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="A map of an explainer counts so often at the most, so that the windows tell of a time rather than "
        "of a burst. Where traffic differs between day and night, 900 makes the reference window last a day.",
    )
    false_alarms: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="How probable it may be that a server whose traffic never changes ever finds drift, by any "
        "statistic of any explainer, however long it runs.",
    )
