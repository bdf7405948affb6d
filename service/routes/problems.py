"""What all routes share in the API's description."""

from typing import Annotated, Any

from fastapi import Header

from service.schemas import Problem

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "model": Problem,
        "description": "Problem",
        "content": {"application/problem+json": {}},
    }
    for status in (401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503, 504)
}


def files(*types: str) -> dict[int | str, dict[str, Any]]:
    """A 200 whose body is a file of one of these types."""
    file = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"description": "The file", "content": dict.fromkeys(types, file)}}


IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]
