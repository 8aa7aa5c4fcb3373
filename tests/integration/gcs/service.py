"""The methods of the API: what each call does to the store, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from tests.integration.gcs import batch, fields, uploads
from tests.integration.gcs.conditions import Conditions, number
from tests.integration.gcs.downloads import download
from tests.integration.gcs.errors import ApiError, condition_not_met, invalid, not_implemented, not_modified, required
from tests.integration.gcs.listing import limit_of, page_of
from tests.integration.gcs.messages import Request, Response
from tests.integration.gcs.objects import StoredObject, attributes_of, check_hashes
from tests.integration.gcs.routes import call_of
from tests.integration.gcs.sessions import Sessions
from tests.integration.gcs.state import Store
from tests.integration.gcs.trouble import RequestLog, Trouble

Names = Mapping[str, str]


class Service:
    """One service: `url` is where it is reached, `page_size` bounds its pages, `token` is what a client has to bear, if any."""

    def __init__(self, url: str, page_size: int, token: str | None) -> None:
        self.url, self.page_size, self.token = url, page_size, token
        self.store, self.trouble, self.log = Store(), Trouble(), RequestLog()
        self._sessions = Sessions(self.store)
        self._methods: dict[str, Callable[[Request, Names], Response]] = {
            "buckets.list": self._list_buckets,
            "buckets.insert": self._insert_bucket,
            "buckets.get": self._get_bucket,
            "buckets.delete": self._delete_bucket,
            "objects.list": self._list,
            "objects.get": self._get,
            "objects.delete": self._delete,
            "objects.patch": self._patch,
            "objects.move": self._move,
            "objects.rewrite": self._rewrite,
            "objects.copy": self._copy,
            "objects.insert": self._insert,
            "uploads.put": self._put_chunk,
            "uploads.cancel": self._cancel,
            "batch": lambda request, _: batch.answer(request, self.answer),
        }

    def answer(self, request: Request) -> Response:
        """Answer a request, errors included; raises ConnectionLost when it is to have no answer."""
        entry = self.log.begin(request.method, request.target)
        try:
            entry.target += uploads.hidden_name(request)
            response = self.trouble.meet(request, entry.target, lambda: self._call(request))
        except ApiError as error:
            response = Response.of_error(error)
        entry.status = response.status
        return response

    def _call(self, request: Request) -> Response:
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise ApiError(401, "authError", "Invalid Credentials", "Authorization")
        call = call_of(request)
        media = request.query.get("alt") == "media"
        if media and call.method != "objects.get":
            raise invalid("Only an object has media", "alt")
        for header in ("If-Match", "If-None-Match"):
            if header in request.headers and call.method != "objects.get":
                raise not_implemented(f"{header} is for reading alone", header)
        return self._methods[call.method](request, call.names)

    def _told(self, resource: dict[str, Any], request: Request, status: int = 200) -> Response:
        wanted = request.query.get("fields")
        return Response.json(fields.selected(resource, wanted) if wanted else resource, status)

    def _object(self, found: StoredObject, request: Request) -> Response:
        return self._told(found.resource(self.url), request)

    def _list_buckets(self, request: Request, names: Names) -> Response:
        if not request.query.get("project"):
            raise required("project")
        prefix, after = request.query.get("prefix", ""), request.query.get("pageToken", "")
        left = [each for each in self.store.buckets() if each.name.startswith(prefix) and each.name > after]
        page = left[: limit_of(request.query, self.page_size)]
        answer: dict[str, Any] = {"kind": "storage#buckets", "items": [each.resource(self.url) for each in page]}
        if len(page) < len(left):
            answer["nextPageToken"] = page[-1].name
        return self._told(answer, request)

    def _insert_bucket(self, request: Request, names: Names) -> Response:
        name = request.json().get("name")
        if not name or not request.query.get("project"):
            raise required("project" if name else "name")
        return self._told(self.store.create_bucket(name).resource(self.url), request)

    def _get_bucket(self, request: Request, names: Names) -> Response:
        return self._told(self.store.bucket(names["bucket"]).resource(self.url), request)

    def _delete_bucket(self, request: Request, names: Names) -> Response:
        self.store.delete_bucket(names["bucket"])
        return Response(204)

    def _list(self, request: Request, names: Names) -> Response:
        page = page_of(self.store.objects(names["bucket"]), request.query, self.page_size)
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if page.items:
            answer["items"] = [each.resource(self.url) for each in page.items]
        if page.prefixes:
            answer["prefixes"] = page.prefixes
        if page.next_token is not None:
            answer["nextPageToken"] = page.next_token
        return self._told(answer, request)

    def _get(self, request: Request, names: Names) -> Response:
        found = self.store.get(names["bucket"], names["name"], **_which(request))
        if request.headers.get("If-Match", found.etag) != found.etag:
            raise condition_not_met("If-Match")
        if request.headers.get("If-None-Match") == found.etag:
            raise not_modified()
        if request.query.get("alt") == "media":
            return download(found, request.headers.get("Range"))
        return self._object(found, request)

    def _delete(self, request: Request, names: Names) -> Response:
        self.store.delete(names["bucket"], names["name"], **_which(request))
        return Response(204)

    def _patch(self, request: Request, names: Names) -> Response:
        changes = attributes_of(request.json())
        return self._object(self.store.patch(names["bucket"], names["name"], changes, **_which(request)), request)

    def _move(self, request: Request, names: Names) -> Response:
        conditions = {"source_conditions": Conditions.of(request.query, "ifSource"), "conditions": Conditions.of(request.query)}
        return self._object(self.store.move(names["bucket"], names["name"], names["to"], **conditions), request)

    def _copied(self, request: Request, names: Names) -> StoredObject:
        return self.store.copy(
            (names["bucket"], names["name"]),
            (names["to_bucket"], names["to"]),
            attributes_of(request.json()),
            generation=_generation(request, "sourceGeneration"),
            source_conditions=Conditions.of(request.query, "ifSource"),
            conditions=Conditions.of(request.query),
        )

    def _copy(self, request: Request, names: Names) -> Response:
        return self._object(self._copied(request, names), request)

    def _rewrite(self, request: Request, names: Names) -> Response:
        new = self._copied(request, names)
        size = str(len(new.data))
        told = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": True}
        return self._told(told | {"resource": new.resource(self.url)}, request)

    def _insert(self, request: Request, names: Names) -> Response:
        conditions, bucket = Conditions.of(request.query), names["bucket"]
        match request.query.get("uploadType"):
            case "media":
                upload = uploads.simple(request)
            case "multipart":
                upload = uploads.multipart(request)
            case "resumable":
                return self._begin(request, bucket, uploads.beginning(request), conditions)
            case other:
                raise invalid(f"Invalid value for uploadType: {other}", "uploadType")
        check_hashes(upload.data, upload.hashes)
        return self._object(self.store.insert(bucket, upload.name, upload.data, upload.attributes, conditions=conditions), request)

    def _begin(self, request: Request, bucket: str, upload: uploads.Upload, conditions: Conditions) -> Response:
        upload_id = self._sessions.begin(bucket, upload, conditions, request.headers)
        where = f"{self.url}{request.path}?uploadType=resumable&name={quote(upload.name, safe='')}&upload_id={upload_id}"
        return Response(200, headers={"Location": where, "X-GUploader-UploadID": upload_id})

    def _put_chunk(self, request: Request, names: Names) -> Response:
        done, kept = self._sessions.put(names["bucket"], _upload_id(request), request)
        if done is not None:
            return self._object(done, request)
        return Response(308, headers={"Range": f"bytes=0-{kept - 1}"} if kept else {})

    def _cancel(self, request: Request, names: Names) -> Response:
        self._sessions.cancel(names["bucket"], _upload_id(request))
        return Response(499)


def _upload_id(request: Request) -> str:
    if not request.query.get("upload_id"):
        raise required("upload_id")
    return request.query["upload_id"]


def _generation(request: Request, parameter: str) -> int | None:
    return number(request.query, parameter) if parameter in request.query else None


def _which(request: Request) -> dict[str, Any]:
    return {"generation": _generation(request, "generation"), "conditions": Conditions.of(request.query)}
