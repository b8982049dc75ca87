"""Any S3 server that honours conditional PUT, through the ``minio`` client."""

import base64
import hashlib
import http.client
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.error import MinioException, S3Error
from minio.helpers import check_bucket_name
from typing_extensions import override

from emx_shared.store.base import Entry, NoSuchObject, Store, StoreError, StoreFull, UnsuitableStore

_CONFLICT_TRIES = 20
_FULL = {"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded"}
T = TypeVar("T")


class S3Store(Store):
    """One bucket, created if it doesn't exist. Buckets with versioning are refused: an erasure must erase."""

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        region: str,
        secure: bool,
        public: str | None = None,
    ) -> None:
        """Set the bucket and how to reach it.

        ``public`` is http(s)://HOST[:PORT] at which clients reach the server, for ``presign_put``. Raises
        UnsuitableStore for a name that no bucket may have.
        """
        try:
            check_bucket_name(bucket, strict=True)
        except ValueError:
            raise UnsuitableStore(
                f"EMX_STORE names the bucket {bucket!r}, which S3 doesn't allow: 3 to 63 of a–z, 0–9, . and -."
            ) from None
        self.bucket = bucket
        self._public: Minio | None = None
        if public:
            address = urlsplit(public)
            self._public = Minio(
                address.netloc,
                access_key=access_key,
                secret_key=secret_key,
                region=region,
                secure=address.scheme == "https",
            )
        self._client = Minio(
            endpoint,
            access_key=access_key,
            secret_key=secret_key,
            region=region,
            secure=secure,
            http_client=urllib3.PoolManager(
                maxsize=64,
                timeout=urllib3.Timeout(connect=5, read=60),
                retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
            ),
        )

    def _ask(self, operation: Callable[[], T], key: str = "") -> T:
        try:
            return operation()
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchObject"):
                raise NoSuchObject(key) from None
            raise _answered(error) from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise StoreError(f"The object store could not be reached ({type(error).__name__})") from error

    @override
    def get(self, key: str) -> bytes:
        def read() -> bytes:
            answer = self._client.get_object(self.bucket, key)
            try:
                return bytes(answer.read())
            finally:
                answer.close()
                answer.release_conn()

        return self._ask(read, key)

    @override
    def put(self, key: str, data: bytes) -> None:
        self._ask(lambda: self._write(key, data))

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._write_if(key, data, {"If-None-Match": "*"})

    @override
    def replace(self, key: str, expected: bytes, data: bytes) -> bool:
        try:
            tag = self._ask(lambda: self._client.stat_object(self.bucket, key), key).etag
            if self.get(key) != expected:
                return False
        except NoSuchObject:
            return False
        return self._write_if(key, data, {"If-Match": f'"{tag}"'})

    def _write(self, key: str, data: bytes, condition: dict[str, str] | None = None) -> None:
        """Write an object whose digest goes with it: else SeaweedFS keeps an empty one if this process dies.

        The public put_object can send neither; this is the one place that goes below it.
        """
        headers = {"Content-MD5": _md5(data), **(condition or {})}
        self._client._execute("PUT", self.bucket, key, body=data, headers=headers)

    def _write_if(self, key: str, data: bytes, condition: dict[str, str]) -> bool:
        for attempt in range(_CONFLICT_TRIES):
            try:
                self._write(key, data, condition)
                return True
            except S3Error as error:
                if error.code in ("PreconditionFailed", "NoSuchKey"):  # the latter: it was deleted meanwhile
                    return False
                if error.code != "ConditionalRequestConflict":  # 409: a writer was at it at the same moment
                    raise _answered(error) from error
                time.sleep(0.02 * (attempt + 1))
            except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
                raise StoreError(f"The object store could not be reached ({type(error).__name__})") from error
        raise StoreError("The object store kept answering ConditionalRequestConflict")

    @override
    def delete(self, key: str) -> None:
        self._ask(lambda: self._client.remove_object(self.bucket, key))

    @override
    def list(self, prefix: str) -> Iterator[Entry]:
        objects = self._ask(lambda: iter(self._client.list_objects(self.bucket, prefix, recursive=True)))
        while (found := self._ask(lambda: next(objects, None))) is not None:
            yield Entry(str(found.object_name), found.last_modified or self.now())

    @override
    def _ask_clock(self) -> float:
        """Return the time in the server's Date header."""
        answer = self._ask(lambda: self._client._execute("HEAD", self.bucket))
        return float(parsedate_to_datetime(answer.headers["Date"]).timestamp())

    @override
    def size(self, key: str) -> int:
        found = self._ask(lambda: self._client.stat_object(self.bucket, key), key)
        return int(found.size or 0)

    @override
    def presign_put(self, key: str, seconds: int) -> str | None:
        if self._public is None:
            return None
        # Signing needs no connection, and the signature names the host that the client will ask.
        return str(self._public.presigned_put_object(self.bucket, key, timedelta(seconds=seconds)))

    @override
    def exists(self, key: str) -> bool:
        try:
            self._ask(lambda: self._client.stat_object(self.bucket, key), key)
        except NoSuchObject:
            return False
        return True

    @override
    def prepare(self) -> bool:
        there = self._ask(lambda: self._client.bucket_exists(self.bucket))
        if not there:
            self._ask(self._make_bucket)
        try:
            versioning = self._client.get_bucket_versioning(self.bucket).status
        except S3Error:
            versioning = None  # a server without versioning
        if versioning == ENABLED:
            raise UnsuitableStore(
                f"Bucket {self.bucket} keeps versions, so that an erased image would stay. "
                "Use a bucket without versioning."
            )
        return not there

    @override
    def remove(self) -> None:
        self._ask(lambda: self._client.remove_bucket(self.bucket))

    @override
    def cut_write(self, key: str, data: bytes, sent: int) -> bool:
        url = urlsplit(
            self._ask(lambda: self._client.presigned_put_object(self.bucket, key, timedelta(minutes=1)))
        )
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.netloc, timeout=10)
        try:
            connection.putrequest("PUT", f"{url.path}?{url.query}")
            connection.putheader("Content-Length", str(len(data)))
            connection.putheader("Content-MD5", _md5(data))
            connection.endheaders()
            connection.send(data[:sent])
            return True
        except OSError as error:
            raise StoreError(f"The object store could not be reached ({type(error).__name__})") from error
        finally:
            connection.close()

    def _make_bucket(self) -> None:
        try:
            self._client.make_bucket(self.bucket)
        except S3Error as error:
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):  # another process was quicker
                raise


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _answered(error: S3Error) -> StoreError:
    kind = StoreFull if error.code in _FULL else StoreError
    return kind(f"The object store answered {error.code}")
