"""Fetch an output that failed a check, for an operator who wants to look at it."""

import tempfile
from typing import BinaryIO

from .. import holds
from ..exceptions import DownloadError, OutputExpired, TransportError
from ..mirror import download
from ..models import VideoJob
from ..providers import client
from . import breaker


def fetch(job: VideoJob) -> tuple[BinaryIO, str]:
    """The output as its host sends it now, in a temporary file, and its extension.

    Nothing is stored or recorded. Raises `VideoJobsError`, and the disk's `OSError`.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        extension = _fetch(job, file)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file, extension


def _fetch(job: VideoJob, file: BinaryIO) -> str:
    if job.video_url:
        try:
            return _download(job.video_url, file)
        except (DownloadError, TransportError):
            file.seek(0)
            file.truncate()
    if holds.held_until("mirror"):
        raise OutputExpired("a fresh URL has to wait for the provider")
    with breaker.asking(job, []):
        answer = client.fetch(job.endpoint, job.provider_task_id or "")
    if not answer.video_url:
        raise OutputExpired("the provider returned no URL for the output")
    return _download(answer.video_url, file)


def _download(url: str, file: BinaryIO) -> str:
    fetched = download.fetch(url, file, progress=lambda *_: None, authorize=client.authorization)
    return fetched.extension
