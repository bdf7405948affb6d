"""PostgreSQL's advisory locks, each for what one alone may do at a time."""

from enum import IntEnum


class AdvisoryLock(IntEnum):
    """Any numbers, as long as no two kinds of lock share one, and each keeps its own."""

    AUDIT = 0x61756469
    MIGRATION = 0x6B697A75
    RETENTION = 0x6B697A76
    PROMOTION = 0x6B697A77
    CANDIDACY = 0x6B697A78
    TRAINING = 0x6B697A79
    RECIPE = 0x6B697A7A
    RESTORE = 0x6B697A7B
