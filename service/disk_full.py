"""What becomes of images while nothing can be written."""

from typing import Literal

# No verdict, or one that is nowhere kept and says so.
DiskFull = Literal["refuse", "answer"]
