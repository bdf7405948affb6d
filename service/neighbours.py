"""What other services with the same database enter: for who watches the line, and for drift, it is
one line, whichever of them a camera asked."""

import asyncio
from collections.abc import Sequence

from anyio import to_thread
from sqlalchemy import Engine as Database
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.drift import Drift
from service.live import Event, Live
from service.store.tables import Inspection

_EVERY_S = 1.0
# Of rows that are entered at once, one with a smaller number can be seen later. Fewer than are kept
# as events, by which they are known.
_AGAIN = 200
_AT_ONCE = 1000


class Neighbours:
    """Looks for their rows. What is known here already is told once."""

    def __init__(self, database: Database, live: Live, drift: Drift, last: Inspection | None):
        """`last` is the one that was entered last so far."""
        self._database = database
        self._live = live
        self._drift = drift
        self._last = last.number or 0 if last else 0

    async def listen(self, end: asyncio.Event) -> None:
        """Until the `end`. A file has one service alone, and nobody else enters anything."""
        if self._database.dialect.name == "sqlite":
            return
        while not await _is_set(end, _EVERY_S):
            known = self._live.ids
            try:
                rows = await to_thread.run_sync(self._read, known)
            except SQLAlchemyError:
                continue  # the ledger says that it is away, and looks whether it is there again
            for row in rows:
                if self._live.tell(Event(row.id, row.recipe, row)):
                    self._drift.add(row)

    def _read(self, known: frozenset[str]) -> Sequence[Inspection]:
        """Those that were entered lately and are not known, the oldest first."""
        order = (Inspection.number, Inspection.id)
        late = select(*order).where(Inspection.number > self._last - _AGAIN)
        with Session(self._database, expire_on_commit=False) as session:
            found = session.execute(late.order_by(*order).limit(_AT_ONCE)).all()
            new = [id for _, id in found if id not in known]
            wanted = select(Inspection).where(Inspection.id.in_(new)).order_by(*order)
            rows = session.scalars(wanted).all()
            session.expunge_all()
        self._last = max([self._last, *(number or 0 for number, _ in found)])
        return rows


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Whether it is, within so long."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
