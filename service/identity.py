"""Who asks, and what they may."""

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

from pydantic import BaseModel

Role = Literal["camera", "operator", "engineer", "admin"]
# Each may what those before it may.
ROLES: tuple[Role, ...] = get_args(Role)

Access = Literal["auto", "open", "closed"]

Asked = TypeVar("Asked", bound=BaseModel)


@dataclass(frozen=True)
class Identity:
    """Somebody who is known: a `user` who logged in, an API `key`, or `anyone` where the service
    stands open; a person at the `command` line, or the `process` itself."""

    name: str
    role: Role
    kind: Literal["user", "key", "anyone", "command", "process"]

    def may(self, role: Role) -> bool:
        """Whether this is allowed to do what takes a role."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def signature(self, given: str) -> str:
        """The name under which an act is kept. Users act in their own name alone; a program says in
        whose name it acts."""
        return self.name if self.kind == "user" else given

    def sign(self, asked: Asked) -> Asked:
        """A request whose `operator` or `by` is who really asks."""
        if self.kind != "user":
            return asked
        field = "operator" if "operator" in type(asked).model_fields else "by"
        return asked.model_copy(update={field: self.name})


ANYONE = Identity("", "admin", "anyone")
