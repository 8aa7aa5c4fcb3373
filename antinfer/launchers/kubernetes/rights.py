"""What right is missing when an API server forbids something, and the rule that would give it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_FORBIDDEN: Final = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)


class Right(NamedTuple):
    """What somebody may do to objects of one kind."""

    group: str
    resource: str
    """With its subresource: ``pods/log``."""
    verb: str

    @property
    def rule(self) -> str:
        """The rule that gives it."""
        return f'{{apiGroups: ["{self.group}"], resources: ["{self.resource}"], verbs: ["{self.verb}"]}}'


def explain(status: int, message: str) -> str:
    """Return the server's `message`, and after it the rule that is missing where that is what it says."""
    found = _FORBIDDEN.search(message) if status == 403 else None
    if found is None:
        return message
    kind = f"a Role in namespace {found['namespace']}" if found["namespace"] else "a ClusterRole"
    rule = Right(found["group"], found["resource"], found["verb"]).rule
    return f"{message} (the missing right: the rule {rule} in {kind}, bound to {found['user']})"
