"""The site's settings with a storage given by the test, as the JSON of a STORAGES entry."""

from project.settings import *  # noqa: F403
from project.settings import env

STORAGES = {"default": env.json("VIDEOJOBS_TEST_STORAGE")}

if "s3" in STORAGES["default"]["BACKEND"]:
    from boto3.s3.transfer import TransferConfig

    AWS_S3_ADDRESSING_STYLE = "path"
    # Upload parts sequentially.
    AWS_S3_TRANSFER_CONFIG = TransferConfig(use_threads=False)
