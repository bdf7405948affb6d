"""What all types share that come over the wire."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field


def _in_utc(time: datetime) -> datetime:
    """A time near the ends of the calendar may be none in UTC."""
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("this is before the year 1 or after 9999") from error


# Without control characters: a NUL byte is a row on SQLite and an error on PostgreSQL.
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
# Whole numbers and times that every database can hold.
Number = Annotated[int, Field(ge=1, lt=2**31)]
Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class Closed(BaseModel):
    """A request body: an unknown field is a mistake, not something to ignore."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
