"""Makes the bucket that the settings name, when it is not there; for a store of one's own."""

import os
import sys

import django


def main() -> int:
    """Make it once; harmless a second time."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mlplatform.settings.web")
    django.setup()
    from django.core.files.storage import storages  # noqa: PLC0415 - needs Django set up
    from storages.backends.s3 import S3Storage  # noqa: PLC0415 - as above

    store = storages["artifacts"]
    if not isinstance(store, S3Storage):
        sys.stderr.write("AWS_STORAGE_BUCKET_NAME names no bucket; there is nothing to make.\n")
        return 1
    client = store.connection.meta.client
    name = store.bucket_name
    if name in {one["Name"] for one in client.list_buckets()["Buckets"]}:
        sys.stdout.write(f"The bucket {name} is there already.\n")
    else:
        client.create_bucket(Bucket=name)
        sys.stdout.write(f"Made the bucket {name}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
