"""What a container sees of its pod: volumes as local folders, environment, command."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.kubernetes.client import KubernetesClient, KubernetesObject

__all__ = ["NotYetError", "PodFiles"]

_REFERENCE = re.compile(r"\$\$|\$\(([^)]+)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_TOKEN_SECS = 3607


class NotYetError(Exception):
    """Something that the pod needs is not there; a kubelet tries again."""


class PodFiles:
    """The files and the environment of one pod on this machine.

    Args:
        client: May read what the pod refers to.
        pod: Its object.
        folder: For its volumes.
        claim_folder: Gives the folder of a PersistentVolumeClaim, by namespace and name.
    """

    def __init__(
        self,
        client: KubernetesClient,
        pod: KubernetesObject,
        folder: Path,
        claim_folder: Callable[[str, str], Path],
    ) -> None:
        self._client = client
        self._pod = pod
        self._folder = folder
        self._claim_folder = claim_folder
        self._namespace: str = pod["metadata"]["namespace"]
        self._volumes: dict[str, Path] = {}

    def write_volumes(self) -> None:
        """Make every volume of the pod; again, it brings changed Secrets and ConfigMaps.

        Raises:
            NotYetError: A Secret, ConfigMap or claim is missing.
        """
        for volume in self._pod["spec"].get("volumes", []):
            self._volumes[volume["name"]] = self._volume(volume)

    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """The variables that the container's specification names, paths replaced.

        Raises:
            NotYetError: A Secret or ConfigMap is missing.
        """
        values: dict[str, str] = {}
        for source in container.get("envFrom", []):
            reference, kind = (
                (source["secretRef"], "Secret") if "secretRef" in source else (source["configMapRef"], "ConfigMap")
            )
            for key, content in self._data(kind, reference).items():
                values[source.get("prefix", "") + key] = content.decode()
        for entry in container.get("env", []):
            if "valueFrom" not in entry:
                values[entry["name"]] = _expanded(entry.get("value", ""), values)
                continue
            value = self._value_from(entry["valueFrom"])
            if value is not None:
                values[entry["name"]] = value
        return {name: self.local(container, value) for name, value in values.items()}

    def command(self, container: Mapping[str, Any], entrypoint: list[str], environment: Mapping[str, str]) -> list[str]:
        """The container's command and arguments, paths replaced; the image's entrypoint where it has no command."""
        parts = [*(container.get("command") or entrypoint), *container.get("args", [])]
        if not parts:
            raise TestbedError(f"container {container['name']} has no command, and its image is not a known one")
        return [self._local_argument(container, _expanded(part, environment)) for part in parts]

    def local(self, container: Mapping[str, Any], value: str) -> str:
        """A value whose begin is a mount path of the container, with the local folder in its place."""
        mounts = sorted(container.get("volumeMounts", []), key=lambda mount: -len(mount["mountPath"]))
        for mount in mounts:
            path = mount["mountPath"].rstrip("/")
            if value == path or value.startswith(f"{path}/"):
                return f"{self._mounted(mount)}{value[len(path) :]}"
        return value

    def _local_argument(self, container: Mapping[str, Any], argument: str) -> str:
        option, equals, value = argument.partition("=")
        if option.startswith("-") and equals:
            return option + equals + self.local(container, value)
        return self.local(container, argument)

    def _mounted(self, mount: Mapping[str, Any]) -> Path:
        volume = self._volumes[mount["name"]]
        if not mount.get("subPath"):
            return volume
        path = volume / str(mount["subPath"])
        if not path.exists():
            path.mkdir(parents=True)
        return path

    def _volume(self, volume: Mapping[str, Any]) -> Path:
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        if "persistentVolumeClaim" in volume:
            return self._claim(volume["persistentVolumeClaim"]["claimName"])
        folder = self._folder / str(volume["name"])
        folder.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            return folder
        for source in volume["projected"]["sources"] if "projected" in volume else [volume]:
            for path, content in self._files(source).items():
                _write(folder / path, content)
        return folder

    def _claim(self, name: str) -> Path:
        claim = self._client.find("PersistentVolumeClaim", name, namespace=self._namespace)
        if claim is None:
            raise NotYetError(f'persistentvolumeclaim "{name}" not found')
        if claim["status"].get("phase") != "Bound":  # nobody else does it here
            change = {"status": {"phase": "Bound", "accessModes": claim["spec"]["accessModes"]}}
            self._client.patch("PersistentVolumeClaim", name, change, namespace=self._namespace, subresource="status")
        return self._claim_folder(self._namespace, name)

    def _files(self, source: Mapping[str, Any]) -> dict[str, bytes]:
        """Contents by path of one source of a projected volume, or of a volume that is one."""
        if "secret" in source:
            return _chosen(source["secret"], self._data("Secret", source["secret"]))
        if "configMap" in source:
            return _chosen(source["configMap"], self._data("ConfigMap", source["configMap"]))
        if "downwardAPI" in source:
            return {item["path"]: self._field(item).encode() for item in source["downwardAPI"]["items"]}
        if "serviceAccountToken" in source:
            return {source["serviceAccountToken"]["path"]: self._token(source["serviceAccountToken"]).encode()}
        raise TestbedError(f"the local kubelet has no volume of this kind: {', '.join(set(source) - {'name'})}")

    def _data(self, kind: str, reference: Mapping[str, Any]) -> dict[str, bytes]:
        name = reference.get("name") or reference.get("secretName", "")
        found = self._client.find(kind, name, namespace=self._namespace)
        if found is None:
            if reference.get("optional"):
                return {}
            raise NotYetError(f'{kind.lower()} "{name}" not found')
        data = {key: base64.b64decode(value) for key, value in found.get("binaryData", {}).items()}
        for key, value in found.get("data", {}).items():
            data[key] = base64.b64decode(value) if kind == "Secret" else value.encode()
        return data

    def _value_from(self, source: Mapping[str, Any]) -> str | None:
        if "fieldRef" in source:
            return self._field(source)
        for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if key in source:
                data = self._data(kind, source[key])
                if source[key]["key"] in data:
                    return data[source[key]["key"]].decode()
                if source[key].get("optional"):
                    return None
                raise NotYetError(f"couldn't find key {source[key]['key']} in {kind} {source[key]['name']}")
        raise TestbedError(f"the local kubelet has no environment of this kind: {', '.join(source)}")

    def _field(self, source: Mapping[str, Any]) -> str:
        if "fieldRef" not in source:
            raise TestbedError("the local kubelet does not serve resourceFieldRef")
        path: str = source["fieldRef"]["fieldPath"]
        subscript = _SUBSCRIPT.fullmatch(path)
        if subscript:
            return str(self._pod["metadata"].get(subscript[1], {}).get(subscript[2], ""))
        if path in {"metadata.labels", "metadata.annotations"}:
            values = self._pod["metadata"].get(path.partition(".")[2], {})
            return "\n".join(f'{key}="{value}"' for key, value in sorted(values.items()))
        known = {"status.podIP": "127.0.0.1", "status.podIPs": "127.0.0.1", "status.hostIP": "127.0.0.1"}
        if path in known:
            return known[path]
        part, _, name = path.partition(".")
        return str(self._pod.get(part, {}).get(name, ""))

    def _token(self, source: Mapping[str, Any]) -> str:
        metadata = self._pod["metadata"]
        owner = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        specification: dict[str, Any] = {"boundObjectRef": owner}
        specification["expirationSeconds"] = source.get("expirationSeconds", _TOKEN_SECS)
        if source.get("audience"):
            specification["audiences"] = [source["audience"]]
        account = self._pod["spec"].get("serviceAccountName", "default")
        path = self._client.path("ServiceAccount", self._namespace, account, "token")
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": specification}
        return str(self._client.request("POST", path, request)["status"]["token"])


def _chosen(source: Mapping[str, Any], data: dict[str, bytes]) -> dict[str, bytes]:
    """All keys under their own names, or the items that the source asks for."""
    if "items" not in source:
        return data
    chosen = {}
    for item in source["items"]:
        if item["key"] in data:
            chosen[item["path"]] = data[item["key"]]
        elif not source.get("optional"):
            raise NotYetError(f"references non-existent key: {item['key']}")
    return chosen


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` by its value, `$$` by one dollar, anything else as it is."""
    return _REFERENCE.sub(lambda found: "$" if found[0] == "$$" else values.get(found[1], found[0]), text)


def _write(path: Path, content: bytes) -> None:
    """By a rename, so that a reader sees the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(path)
