"""From the setting to the store."""

from pathlib import Path
from urllib.parse import urlsplit

from emx_shared.settings import Settings
from emx_shared.store.base import Store, UnsuitableStore
from emx_shared.store.directory import DirectoryStore


def open_store(settings: Settings) -> Store:
    """Return the store that EMX_STORE names.

    ``file:DIR`` or ``s3+http(s)://HOST[:PORT]/BUCKET``. Raises UnsuitableStore for anything else.
    """
    url = urlsplit(settings.store)
    if folder := folder_of(settings.store):
        return DirectoryStore(folder)
    if url.scheme in ("s3+http", "s3+https") and url.netloc and url.path.strip("/"):
        from emx_shared.store.s3 import S3Store

        return S3Store(
            url.netloc,
            url.path.strip("/"),
            settings.s3_access_key,
            settings.s3_secret_key,
            settings.s3_region,
            secure=url.scheme == "s3+https",
            public=settings.s3_public,
        )
    raise UnsuitableStore("EMX_STORE must be file:DIR or s3+http(s)://HOST[:PORT]/BUCKET")


def folder_of(store: str) -> Path | None:
    """Return the directory that ``file:DIR`` names; None for other stores."""
    url = urlsplit(store)
    return Path(url.netloc + url.path) if url.scheme == "file" else None
