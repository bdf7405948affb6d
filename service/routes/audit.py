"""`/v1/audit`: who changed what that decides."""

import json
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from service.routes.access import needs
from service.schemas import AuditRecord
from service.state import CurrentState
from service.store import audit, records
from service.store.tables import AuditEntry
from service.wire import Number

router = APIRouter(prefix="/v1", tags=["access"], dependencies=[needs("admin")])


@router.get("/audit", operation_id="list_audit")
async def list_audit(
    state: CurrentState,
    before: Number | None = None,
    limit: Annotated[int, Query(ge=1, le=records.PAGE)] = 50,
) -> list[AuditRecord]:
    """Changes of lines, models, recipes, labels, trainings, users and keys, the newest first."""

    def read() -> list[AuditRecord]:
        with Session(state.database) as session:
            return [_record(row) for row in audit.page(session, before, limit)]

    return await to_thread.run_sync(read)


def _record(row: AuditEntry) -> AuditRecord:
    return AuditRecord(
        number=row.number,
        creation_time=row.created_at,
        name=row.name,
        kind=row.kind,
        role=row.role,
        action=row.action,
        subject=row.subject,
        details=json.loads(row.details),
        digest=row.digest,
    )
