"""Masks that are being drawn: functions of a session, whose transaction is its caller's."""

from sqlalchemy import delete
from sqlalchemy.orm import Session

from service.store import records
from service.store.tables import MaskDraft


def keep(session: Session, inspection_id: str, operator: str, png: bytes) -> None:
    """Keep a draft in the place of the operator's earlier one."""
    records.put(
        session, MaskDraft, inspection_id=inspection_id, operator=operator,
        updated_at=records.now(), png=png,
    )  # fmt: skip


def find(session: Session, inspection_id: str, operator: str) -> bytes | None:
    """The draft's PNG."""
    draft = session.get(MaskDraft, (inspection_id, operator))
    return draft.png if draft else None


def remove(session: Session, inspection_id: str, operator: str) -> None:
    """Let go of a draft, if there is one."""
    query = delete(MaskDraft).where(
        MaskDraft.inspection_id == inspection_id, MaskDraft.operator == operator
    )
    session.execute(query)
