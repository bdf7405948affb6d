"""`GET /v1/parts/{part_id}`: a part by all its views."""

from anyio import to_thread
from fastapi import APIRouter

from service.decision import worst
from service.routes.access import needs
from service.routes.problems import PROBLEMS
from service.routes.results import result_of
from service.schemas import PartResult, PartView
from service.state import CurrentState
from service.wire import Name

router = APIRouter(prefix="/v1", tags=["inspection"], dependencies=[needs("camera")])


@router.get("/parts/{part_id}", operation_id="get_part", responses=PROBLEMS)
async def get_part(state: CurrentState, part_id: Name, product: Name) -> PartResult:
    """The newest inspection of each view of the product; the part's verdict is its worst view's.

    A view that is missing was not inspected, and makes it an `error`.
    """
    views = await to_thread.run_sync(state.recipes.part, product, part_id)
    return PartResult(
        product=product,
        part_id=part_id,
        verdict=worst({row.verdict if row else "error" for row in views.values()}),
        views=[
            PartView(recipe_id=recipe, inspection=result_of(row) if row else None)
            for recipe, row in sorted(views.items())
        ],
    )
