from typing import Any

from videojobs.models import VideoJob
from videojobs.states import MirrorStatus, Status

MIRROR_DUE = {"status": Status.COMPLETED, "mirror_status": MirrorStatus.DUE}


def a_job(**fields: Any) -> VideoJob:
    if fields.get("status") in {Status.QUEUED, Status.PROCESSING}:
        fields = {"provider_task_id": f"proj_{VideoJob.objects.count()}", **fields}
    return VideoJob.objects.create(**{"endpoint": "e", **fields})
