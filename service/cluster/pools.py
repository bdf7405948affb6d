"""Which recipes run where, and on how many devices."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.settings import Settings, SettingsError


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pool(_Closed):
    """Devices that are alike, and what is run on them."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    recipes: tuple[str, ...] = Field((), description="Those; all that no other pool has, if none.")
    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1
    queue_age_s: Annotated[float, Field(gt=0)] = Field(
        0.2, description="As long as the oldest image waits longer, there is one replica more."
    )
    actor: dict[str, Any] = Field(
        default_factory=dict,
        description="What of a node each needs, as Ray's ray_actor_options: num_gpus, num_cpus, "
        "resources.",
    )


class Pools(_Closed):
    """All of them, and the fronts: how many, and what of a node each needs."""

    front: dict[str, Any] = Field(
        default_factory=dict, description="As ray_actor_options: where its disk is."
    )
    fronts: Annotated[int, Field(ge=1)] = Field(
        1, description="Each on a node of its own; several share a database and object stores."
    )
    pools: tuple[Pool, ...] = (Pool(name="engines"),)

    def check(self, settings: Settings) -> None:
        """Raises SettingsError."""
        shared = settings.database and settings.blobs and settings.bundles
        if self.fronts > 1 and not shared:
            raise SettingsError(
                "Several fronts must share what they know.",
                remedy="Set KIZU_DATABASE, KIZU_BLOBS and KIZU_BUNDLES on every node.",
            )
        names = [pool.name for pool in self.pools]
        if len(set(names)) < len(names):
            raise SettingsError("Two pools have one name.", remedy="Name each differently.")
        if [pool.recipes for pool in self.pools].count(()) != 1:
            raise SettingsError(
                "Exactly one pool must take what no other one has.",
                remedy="Leave out the recipes of one pool.",
            )

    def of(self, recipe: str) -> Pool:
        """Where a recipe runs."""
        return _of(self.pools, recipe)


def _of(pools: Sequence[Pool], recipe: str) -> Pool:
    named = [pool for pool in pools if recipe in pool.recipes]
    return (named or [pool for pool in pools if not pool.recipes])[0]
