"""Buckets and their objects: every call is atomic, and seen by every later one."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tests.integration.gcs.conditions import NONE, Conditions
from tests.integration.gcs.errors import ApiError, invalid, not_found
from tests.integration.gcs.objects import StoredObject, check_name, crc32c_of, md5_of, merged, timestamp


@dataclass
class Bucket:
    name: str
    created: datetime
    objects: dict[str, StoredObject] = field(default_factory=dict)

    def resource(self, url: str) -> dict[str, Any]:
        times = {"timeCreated": timestamp(self.created), "updated": timestamp(self.created)}
        kept = {"location": "US", "locationType": "multi-region", "storageClass": "STANDARD", "metageneration": "1", "etag": "CAE="}
        return {
            "kind": "storage#bucket",
            "id": self.name,
            "name": self.name,
            "selfLink": f"{url}/storage/v1/b/{self.name}",
            **kept,
            **times,
        }


class Store:
    """What the service keeps; tests may call it beside the service. Every method raises ApiError as the service answers it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._buckets: dict[str, Bucket] = {}
        self._generation = 0

    def create_bucket(self, name: str) -> Bucket:
        with self._lock:
            if name in self._buckets:
                raise ApiError(409, "conflict", f"You already own the bucket {name}. Please select another name.")
            self._buckets[name] = Bucket(name, datetime.now(UTC))
            return self._buckets[name]

    def bucket(self, name: str) -> Bucket:
        with self._lock:
            if name not in self._buckets:
                raise not_found(f"The specified bucket does not exist: {name}")
            return self._buckets[name]

    def buckets(self) -> list[Bucket]:
        with self._lock:
            return sorted(self._buckets.values(), key=lambda bucket: bucket.name)

    def delete_bucket(self, name: str) -> None:
        with self._lock:
            if self.bucket(name).objects:
                raise ApiError(409, "conflict", "The bucket you tried to delete is not empty.")
            del self._buckets[name]

    def objects(self, bucket: str) -> list[StoredObject]:
        """Return the objects at one moment, in no order."""
        with self._lock:
            return list(self.bucket(bucket).objects.values())

    def names(self, bucket: str) -> list[str]:
        return sorted(each.name for each in self.objects(bucket))

    def get(self, bucket: str, name: str, *, generation: int | None = None, conditions: Conditions = NONE) -> StoredObject:
        """Return the live object; one of another `generation` is gone, as nothing keeps versions."""
        with self._lock:
            live = self.bucket(bucket).objects.get(name)
            if live is None or generation not in (None, live.generation):
                raise not_found(f"No such object: {bucket}/{name}")
            conditions.check(live)
            return live

    def check(self, bucket: str, name: str, conditions: Conditions) -> None:
        """Raise what `insert` would raise now for the same conditions."""
        with self._lock:
            check_name(name)
            conditions.check(self.bucket(bucket).objects.get(name))

    def insert(
        self, bucket: str, name: str, data: bytes, attributes: Mapping[str, Any] | None = None, *, conditions: Conditions = NONE
    ) -> StoredObject:
        """Put an object, in place of the live one if there is one."""
        md5, crc32c = md5_of(data), crc32c_of(data)
        with self._lock:
            self.check(bucket, name, conditions)
            # As with the real service a generation is the time in microseconds: larger than every one before, in all buckets.
            self._generation = max(self._generation + 1, time.time_ns() // 1000)
            now = datetime.now(UTC)
            kept = merged({}, attributes or {})
            new = StoredObject(bucket, name, data, self._generation, 1, now, now, kept, md5, crc32c)
            self.bucket(bucket).objects[name] = new
            return new

    def delete(self, bucket: str, name: str, *, generation: int | None = None, conditions: Conditions = NONE) -> None:
        with self._lock:
            self.get(bucket, name, generation=generation, conditions=conditions)
            del self.bucket(bucket).objects[name]

    def patch(
        self, bucket: str, name: str, attributes: Mapping[str, Any], *, generation: int | None = None, conditions: Conditions = NONE
    ) -> StoredObject:
        """Change metadata: the generation stays, the metageneration grows."""
        with self._lock:
            live = self.get(bucket, name, generation=generation, conditions=conditions)
            kept = merged(live.attributes, attributes)
            new = replace(live, attributes=kept, metageneration=live.metageneration + 1, updated=datetime.now(UTC))
            self.bucket(bucket).objects[name] = new
            return new

    def copy(
        self,
        source: tuple[str, str],
        target: tuple[str, str],
        attributes: Mapping[str, Any] | None = None,
        *,
        generation: int | None = None,
        source_conditions: Conditions = NONE,
        conditions: Conditions = NONE,
    ) -> StoredObject:
        """Copy an object, whose metadata go with it unless `attributes` are given in place of them."""
        with self._lock:
            old = self.get(*source, generation=generation, conditions=source_conditions)
            return self.insert(*target, old.data, attributes or old.attributes, conditions=conditions)

    def move(
        self, bucket: str, source: str, target: str, *, source_conditions: Conditions = NONE, conditions: Conditions = NONE
    ) -> StoredObject:
        """Rename an object: both names change at once, or neither."""
        if source == target:
            raise invalid("Source and destination have the same name")
        with self._lock:
            new = self.copy((bucket, source), (bucket, target), source_conditions=source_conditions, conditions=conditions)
            self.delete(bucket, source)
            return new
