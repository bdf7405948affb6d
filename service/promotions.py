"""What a version that appears in the store does: the policy."""

from typing import Literal

# It decides; it runs in the champion's shadow; or nothing. A recipe's first version always
# decides, or it could not be served at all.
Promotions = Literal["newest", "shadow", "manual"]
