"""A container's variables, with everything that they refer to looked up."""

from __future__ import annotations

from tests.k8s.double.kinds import CONFIGMAPS, SECRETS, Resource
from tests.k8s.double.kubelet.environment import NotConfigured, expand, field_value, resource_value
from tests.k8s.double.kubelet.volumes import contents_of
from tests.k8s.double.objects import Object, dig, namespace_of
from tests.k8s.double.registry import Registry


def resolve(registry: Registry, pod: Object, container: Object) -> dict[str, str]:
    """The variables in their order; `$(NAME)` sees those before it. Raises `NotConfigured` for what is not there."""
    variables: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        prefix = source.get("prefix", "")
        for kind, resource in (("configMapRef", CONFIGMAPS), ("secretRef", SECRETS)):
            if source.get(kind) is not None:
                data = _data(registry, pod, resource, source[kind])
                variables.update({prefix + key: value for key, value in data.items()})
    for variable in container.get("env") or []:
        value = _value(registry, pod, container, variable)
        if value is not None:
            variables[variable["name"]] = expand(value, variables) if "valueFrom" not in variable else value
    return variables


def _value(registry: Registry, pod: Object, container: Object, variable: Object) -> str | None:
    source = variable.get("valueFrom")
    if source is None:
        return str(variable.get("value", ""))
    if source.get("fieldRef") is not None:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    if source.get("resourceFieldRef") is not None:
        return resource_value(container, source["resourceFieldRef"]["resource"])
    for kind, resource in (("configMapKeyRef", CONFIGMAPS), ("secretKeyRef", SECRETS)):
        wanted = source.get(kind)
        if wanted is None:
            continue
        data = _data(registry, pod, resource, wanted)
        if wanted["key"] in data:
            return data[wanted["key"]]
        if not wanted.get("optional"):
            told = f"couldn't find key {wanted['key']} in {resource.kind} {namespace_of(pod)}/{wanted['name']}"
            raise NotConfigured(told)
        return None
    return ""


def _data(registry: Registry, pod: Object, resource: Resource, wanted: Object) -> dict[str, str]:
    found = registry.look(resource, namespace_of(pod), wanted["name"])
    if found is None:
        if dig(wanted, "optional", default=False):
            return {}
        raise NotConfigured(f'{resource.kind.lower()} "{wanted["name"]}" not found')
    return {key: value.decode() for key, value in contents_of(resource, found).items()}
