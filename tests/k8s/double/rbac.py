"""Who may do what: tokens, and the rules of Roles and ClusterRoles that are bound to their service accounts."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.k8s.double.errors import ApiError
from tests.k8s.double.kinds import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES
from tests.k8s.double.objects import Object, dig
from tests.k8s.double.store import Store


@dataclass(frozen=True)
class User:
    """Who asks. `everything` is what a cluster administrator has."""

    name: str
    groups: tuple[str, ...] = ()
    everything: bool = False


ADMIN: Final = User("kubernetes-admin", ("system:masters",), everything=True)
ANONYMOUS: Final = User("system:anonymous", ("system:unauthenticated",))


@dataclass(frozen=True)
class Attributes:
    """What is asked for. `resource` includes the subresource (`pods/status`)."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""


class Authorizer:
    """Tokens and their rights. A request without a token is the administrator's, unless `anonymous` is refused."""

    def __init__(self, store: Store, *, anonymous_is_admin: bool) -> None:
        self._store = store
        self._anonymous = ADMIN if anonymous_is_admin else ANONYMOUS
        self._users: dict[str, User] = {}

    def admin_token(self) -> str:
        return self._issue(ADMIN)

    def service_account_token(self, namespace: str, name: str) -> str:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return self._issue(User(f"system:serviceaccount:{namespace}:{name}", groups))

    def _issue(self, user: User) -> str:
        token = secrets.token_urlsafe(24)
        self._users[token] = user
        return token

    def revoke(self, token: str) -> None:
        """Have a token refused from now on, as one that has run out."""
        del self._users[token]

    def user_of(self, header: str | None) -> User:
        """The user behind an Authorization header. Raises 401 for a token that nobody issued."""
        if not header:
            return self._anonymous
        token = header.removeprefix("Bearer ").strip()
        user = self._users.get(token)
        if user is None:
            raise ApiError(401, "Unauthorized")
        return user

    def check(self, user: User, asked: Attributes) -> None:
        """Raises 403 in the words of a real server."""
        if self.allows(user, asked):
            return
        group = f'"{asked.group}"'
        where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
        plural, _, _ = asked.resource.partition("/")
        qualified = f"{plural}.{asked.group}" if asked.group else plural
        what = f'{qualified} "{asked.name}"' if asked.name else qualified
        message = f'{what} is forbidden: User "{user.name}" cannot {asked.verb} resource "{asked.resource}" in API group {group} {where}'
        details: Object = {"kind": plural}
        if asked.name:
            details["name"] = asked.name
        if asked.group:
            details["group"] = asked.group
        raise ApiError(403, message, details=details)

    def allows(self, user: User, asked: Attributes) -> bool:
        return user.everything or any(_rule_allows(rule, asked) for rule in self._rules(user, asked.namespace))

    def _rules(self, user: User, namespace: str) -> Iterator[Object]:
        for binding in self._store.each(CLUSTERROLEBINDINGS):
            if _binds(binding, user, ""):
                yield from self._role(binding["roleRef"], "")
        for binding in self._store.each(ROLEBINDINGS):
            where = binding["metadata"]["namespace"]
            if where == namespace and _binds(binding, user, where):
                yield from self._role(binding["roleRef"], where)

    def _role(self, reference: Object, namespace: str) -> Iterator[Object]:
        if reference["kind"] == "ClusterRole":
            found = self._store.get(CLUSTERROLES, ("", reference["name"]))
        else:
            found = self._store.get(ROLES, (namespace, reference["name"]))
        yield from (found.obj.get("rules") or []) if found else []


def _binds(binding: Object, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or []:
        if subject["kind"] == "ServiceAccount":
            where = subject.get("namespace") or namespace
            if user.name == f"system:serviceaccount:{where}:{subject['name']}":
                return True
        elif (subject["kind"] == "Group" and subject["name"] in user.groups) or (
            subject["kind"] == "User" and subject["name"] == user.name
        ):
            return True
    return False


def _rule_allows(rule: Object, asked: Attributes) -> bool:
    if not {"*", asked.verb} & set(dig(rule, "verbs", default=[])):
        return False
    if not {"*", asked.group} & set(dig(rule, "apiGroups", default=[])):
        return False
    _, _, sub = asked.resource.partition("/")
    named = {"*", asked.resource, f"*/{sub}"} if sub else {"*", asked.resource}
    if not named & set(dig(rule, "resources", default=[])):
        return False
    only = dig(rule, "resourceNames", default=[])
    return not only or asked.name in only
