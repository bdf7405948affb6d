"""An identity provider to log in by."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it still uses authlib's older half
    import oidc_provider_mock as idp


@contextmanager
def identity_provider(people: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Its address; by whom one may be there, and what it says of each."""
    users = [idp.User(sub=sub, claims=claims) for sub, claims in people.items()]
    with idp.run_server_in_thread(user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"
