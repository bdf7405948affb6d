"""The base of every type that crosses a wall: frozen, and closed to unknown fields."""

from pydantic import BaseModel, ConfigDict


class Contract(BaseModel):
    """An immutable value read from, or written to, a file that two rooms share."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
