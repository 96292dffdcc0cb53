"""Keys of the config that the environment sets: XAI_EVALUATOR__SAMPLE_RATE=0.1 is evaluator.sample_rate = 0.1.

pydantic-settings reads variables, too, but passes over those that name no key, and wants JSON where --set takes TOML.
"""

from __future__ import annotations

from collections.abc import Mapping

_PREFIX = "XAI_"
_DELIMITER = "__"


def overrides_in(environment: Mapping[str, str]) -> dict[str, str]:
    """The overrides that environment variables stand for.

    Args:
        environment: The variables. Those count whose names begin with XAI_ and have a double underscore, which divides
            section and key; upper and lower case are the same. Empty ones count as not set.

    Returns:
        For each key's path, the name of its variable; sorted, so that sections and their keys do not depend on the
        order of the environment.
    """
    names = sorted(name for name, value in environment.items() if name.startswith(_PREFIX) and value)
    return {
        name.removeprefix(_PREFIX).lower().replace(_DELIMITER, "."): name for name in names if _DELIMITER in name[4:]
    }
