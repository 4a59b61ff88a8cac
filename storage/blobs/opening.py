"""Opens the blob store that an address names."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from storage.blobs.directory import DirectoryBlobs
from storage.blobs.store import BlobStore


def open_blobs(url: str) -> BlobStore:
    """The store at a folder path or at ``s3://bucket/prefix[?endpoint_url=…&region=…]``."""
    if "://" not in url:
        return DirectoryBlobs(Path(url))
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError(f"blob store {url!r} is neither a folder nor s3://bucket/prefix")
    from storage.blobs.s3 import S3Blobs  # boto3 takes a third of a second to import, and few need it

    options = parse_qs(parts.query, strict_parsing=bool(parts.query))
    if unknown := sorted(set(options) - {"endpoint_url", "region"}):
        raise ValueError(f"blob store {url!r}: unknown options {unknown}, known are endpoint_url and region")
    return S3Blobs(
        parts.netloc,
        parts.path.strip("/"),
        endpoint_url=options.get("endpoint_url", [None])[-1],
        region=options.get("region", [None])[-1],
    )
