"""The volumes of a pod as folders."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.k8s.double.kinds import CLAIMS, CONFIGMAPS, SECRETS, Resource
from tests.k8s.double.kubelet.environment import field_value, resource_value
from tests.k8s.double.objects import Object, dig, namespace_of
from tests.k8s.double.registry import Registry

_DEFAULT_MODE: Final = 0o644
_GROUP_READS: Final = 0o440


class NotMounted(Exception):
    """A volume cannot be set up yet; the message is the kubelet's."""


@dataclass(frozen=True)
class Mounter:
    """Fills folders. `token` makes a token for a service account (namespace, name)."""

    registry: Registry
    root: Path
    token: Callable[[str, str], str]

    def mount(self, pod: Object, folder: Path) -> dict[str, Path]:
        """The folder of each volume of `pod`, under `folder` or, what outlives it, elsewhere. Raises `NotMounted`."""
        return {each["name"]: self._volume(pod, each, folder / each["name"]) for each in pod["spec"].get("volumes") or []}

    def _volume(self, pod: Object, volume: Object, folder: Path) -> Path:
        if volume.get("hostPath") is not None:
            return Path(volume["hostPath"]["path"])
        if volume.get("persistentVolumeClaim") is not None:
            return self._claim(pod, volume["persistentVolumeClaim"]["claimName"])
        folder.mkdir(parents=True, exist_ok=True)
        sources = dig(volume, "projected", "sources")
        if sources is None:
            sources = [{kind: volume[kind]} for kind in ("configMap", "secret", "downwardAPI") if volume.get(kind) is not None]
        for source in sources:
            for name, content in self._contents(pod, source, volume["name"]).items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                # What an earlier, half-done attempt has left may be read-only.
                path.unlink(missing_ok=True)
                path.write_bytes(content)
                path.chmod(_mode(pod, volume, source, name))
        return folder

    def _claim(self, pod: Object, name: str) -> Path:
        if self.registry.look(CLAIMS, namespace_of(pod), name) is None:
            raise NotMounted(f'persistentvolumeclaim "{name}" not found')
        folder = self.root / "claims" / namespace_of(pod) / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _contents(self, pod: Object, source: Object, volume: str) -> dict[str, bytes]:
        if (wanted := source.get("configMap")) is not None:
            return self._keys(pod, CONFIGMAPS, wanted.get("name"), wanted, volume)
        if (wanted := source.get("secret")) is not None:
            return self._keys(pod, SECRETS, wanted.get("secretName") or wanted.get("name"), wanted, volume)
        if (wanted := source.get("serviceAccountToken")) is not None:
            token = self.token(namespace_of(pod), pod["spec"]["serviceAccountName"])
            return {wanted["path"]: token.encode()}
        items = dig(source, "downwardAPI", "items", default=[])
        return {each["path"]: _downward(pod, each).encode() for each in items}

    def _keys(self, pod: Object, resource: Resource, name: str, wanted: Object, volume: str) -> dict[str, bytes]:
        found = self.registry.look(resource, namespace_of(pod), name)
        if found is None:
            if wanted.get("optional"):
                return {}
            raise NotMounted(f'MountVolume.SetUp failed for volume "{volume}" : {resource.kind.lower()} "{name}" not found')
        data = contents_of(resource, found)
        if not wanted.get("items"):
            return data
        chosen = {}
        for item in wanted["items"]:
            if item["key"] in data:
                chosen[item["path"]] = data[item["key"]]
            elif not wanted.get("optional"):
                told = f"references non-existent {'config' if resource is CONFIGMAPS else 'secret'} key: {item['key']}"
                raise NotMounted(f'MountVolume.SetUp failed for volume "{volume}" : {told}')
        return chosen


def _mode(pod: Object, volume: Object, source: Object, path: str) -> int:
    """The mode of a file: its own, or that of its volume; a pod's `fsGroup` may read it in any case."""
    kind = next((each for each in volume if each in ("configMap", "secret", "downwardAPI", "projected")), "")
    items = [each for about in source.values() for each in about.get("items") or [] if each["path"] == path]
    mode = next((each["mode"] for each in items if each.get("mode")), dig(volume, kind, "defaultMode", default=_DEFAULT_MODE))
    return int(mode) | (_GROUP_READS if dig(pod, "spec", "securityContext", "fsGroup") is not None else 0)


def contents_of(resource: Resource, obj: Object) -> dict[str, bytes]:
    """The data of a ConfigMap or Secret."""
    if resource is SECRETS:
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    return {**plain, **{key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}}


def _downward(pod: Object, item: Object) -> str:
    if item.get("fieldRef") is not None:
        return field_value(pod, item["fieldRef"]["fieldPath"])
    reference = item["resourceFieldRef"]
    containers = {each["name"]: each for each in pod["spec"]["containers"]}
    return resource_value(containers[reference["containerName"]], reference["resource"])
