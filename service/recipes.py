"""Recipes as people set them: what is in force, and how it came to be."""

from sqlalchemy import Engine as Database
from sqlalchemy.orm import Session

from service.errors import BadRequest, NotFound
from service.recipe_settings import RecipeSettings, Revision
from service.store import records
from service.store.advisory_locks import AdvisoryLock
from service.store.outage import Outage
from service.store.tables import Inspection, RecipeRevision

# At which an area must still cover something; heatmaps are no coarser.
_COARSE = 32


def read_revision(session: Session, number: int) -> Revision:
    """A revision by its number; 0 has no settings."""
    row = records.recipe_revision(session, number)
    settings = RecipeSettings.model_validate(row.settings) if row else RecipeSettings()
    return Revision(number, settings)


class Recipes:
    """Revisions of recipes; each is read once."""

    def __init__(self, database: Database, outage: Outage) -> None:
        self._database = database
        self._outage = outage
        self._read: dict[int, Revision] = {}
        self._numbers: dict[int, str] = {}

    def in_force(self, session: Session, recipe: str) -> Revision:
        """The newest revision of a recipe."""
        number = records.newest_recipe_revision(session, recipe)
        if number not in self._read:
            self._read = {**self._read, number: read_revision(session, number)}
        return self._read[number]

    def revise(
        self, recipe: str, settings: RecipeSettings, *, by: str, reason: str
    ) -> RecipeRevision:
        """From the next image on. Raises BadRequest where the settings leave nothing to inspect, or
        the number is another recipe's."""
        area = settings.area(_COARSE, _COARSE)
        if area is not None and not area.any():
            raise BadRequest(
                "Nothing of the image would count.", remedy="Leave a part of it to be inspected."
            )
        with Session(self._database, expire_on_commit=False) as session:
            records.write_alone(session, AdvisoryLock.RECIPE)
            for other, revision in self._all(session).items():
                taken = settings.number is not None and revision.settings.number == settings.number
                if other != recipe and taken:
                    raise BadRequest(
                        f"The number {settings.number} selects {other!r} already.",
                        remedy="Choose another one.",
                    )
            row = RecipeRevision(
                created_at=records.now(),
                recipe=recipe,
                settings=settings.model_dump(mode="json"),
                by=by,
                reason=reason,
            )
            session.add(row)
            session.commit()
        return row

    def by_number(self, number: int) -> str:
        """The recipe that a PLC selects by a number; while the database is away, the one that it
        selected last. Raises NotFound."""

        def read() -> dict[int, str]:
            with Session(self._database) as session:
                found = self._all(session).items()
            self._numbers = {
                revision.settings.number: recipe
                for recipe, revision in found
                if revision.settings.number is not None
            }
            return self._numbers

        def last(error: Exception) -> dict[int, str]:
            if number not in self._numbers:
                raise error
            return self._numbers

        numbers = self._outage.attempt(read, last)
        if number not in numbers:
            raise NotFound(
                f"No recipe has the number {number}.", remedy="Give it to one in the console."
            )
        return numbers[number]

    def views(self, product: str) -> list[str]:
        """The recipes that are views of a product. Raises NotFound."""
        with Session(self._database) as session:
            found = [
                recipe
                for recipe, revision in self._all(session).items()
                if revision.settings.product == product
            ]
        if not found:
            raise NotFound(f"No recipe is a view of {product!r}.")
        return found

    def part(self, product: str, part_id: str) -> dict[str, Inspection | None]:
        """The newest inspection of each view of a part; None of those that are missing.

        Raises NotFound.
        """
        views = self.views(product)
        with Session(self._database) as session:
            found = {view: records.newest_of_part(session, view, part_id) for view in views}
            session.expunge_all()
        return found

    def _all(self, session: Session) -> dict[str, Revision]:
        names = records.revised_recipes(session)
        return {name: self.in_force(session, name) for name in names}
