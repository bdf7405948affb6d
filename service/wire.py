"""What all types share that come over the wire."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Without control characters: a NUL byte is a row on SQLite and an error on PostgreSQL.
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Closed(BaseModel):
    """A request body: an unknown field is a mistake, not something to ignore."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
