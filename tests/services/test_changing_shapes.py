"""A provider that changes the shape of its answers: no task's ID is lost, and no video."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import cycle, islice
from typing import Any

import pytest

from videojobs import operations
from videojobs.models import ProviderHold, VideoJob
from videojobs.states import MirrorStatus, Status
from videojobs.testing import Answer, Script

from .steps import MeddledProvider, run, submitted

pytestmark = pytest.mark.django_db(transaction=True)

JOBS = 60

#: Shapes of the response to a create request in which the ID is read.
READ: list[Callable[[str], Answer]] = [
    lambda task: Answer(body={"code": "0", "msg": None, "data": {"projectId": task}}),
    lambda task: Answer(body={"code": 0, "msg": None, "data": {"projectId": task}}),
    lambda task: Answer(body={"code": 200, "data": {"projectId": task}}),
    lambda task: Answer(body={"code": "ok", "message": "success", "data": {"id": task}}),
    lambda task: Answer(body={"data": {"taskId": task}}),
    lambda task: Answer(body={"data": {"task_id": task}, "success": True}),
    lambda task: Answer(body={"task_id": task}),
    lambda task: Answer(body={"id": task, "status": "queued"}),
    lambda task: Answer(body={"ID": task, "Status": "QUEUED"}),
    lambda task: Answer(body={"projectId": task}),
    lambda task: Answer(body={"result": {"project-id": task}}),
    lambda task: Answer(body={"code": "0", "data": [{"id": task}]}),
    lambda task: Answer(body={"code": "0", "data": json.dumps({"id": task})}),
    lambda task: Answer(body=[{"id": task}]),
    lambda task: Answer(body={"code": "x", "id": task, "status": "processing"}),
    lambda task: Answer(201, {"id": task}),
    lambda task: Answer(202, {"id": task}, {"Location": f"/v1/result/{task}"}),
    lambda task: Answer(body={"id": task}, interim=(103,)),
    lambda task: Answer(body={"id": task}, interim=(100, 102, 103)),
    lambda task: Answer(body=json.dumps({"id": task}), headers={"Content-Type": "text/html"}),
]
#: Shapes that leave it to an operator, to whom the ID is offered.
OFFERED: list[Callable[[str], Answer]] = [
    lambda task: Answer(body={"generation_id": task}),
    lambda task: Answer(body={"code": "0", "data": task}),
    lambda task: Answer(body={"code": "1", "msg": "no", "data": {"projectId": task}}),
    lambda task: Answer(body={"output": {"jobs": [{"videoId": task}]}}),
    lambda task: Answer(500, {"code": "500", "data": {"projectId": task}}),
    lambda task: Answer(409, {"error": {"message": "exists", "task_id": task}}),
    lambda task: Answer(401, {"id": task}),
    lambda task: Answer(303, b"", {"Location": f"/v1/result/{task}"}),
    lambda task: Answer(body=f'{{"id": "{task}", "status": "que'),
    lambda task: Answer(body=f'{{"id": "{task}"}}', headers={"Content-Length": "5000"}),
]
#: Shapes of the response to a check.
CHECKED: list[Callable[[dict[str, Any]], Any]] = [
    lambda result: result,
    lambda result: {"code": "0", "msg": None, "data": result},
    lambda result: {"code": 200, "message": "success", "data": result},
    lambda result: {**result, "code": "1001"},
    lambda result: {"data": [result]},
    lambda result: {"data": json.dumps(result)},
    lambda result: [result],
    lambda result: {name.upper(): value for name, value in result.items()},
    lambda result: {**result, "status": f" {result['status'].title()} "},
    lambda result: {**result, "id": None, "taskId": result["id"]},
    lambda result: {name: value for name, value in result.items() if name != "id"},
    lambda result: {**result, "video_url": None, "url": result["video_url"]},
    lambda result: {**result, "video_url": None, "output": [result["video_url"]]},
    lambda result: {**result, "video_url": None, "metadata": {"url": result["video_url"]}},
    lambda result: {**result, "actualDuration": str(result.get("actualDuration", ""))},
    lambda result: {"status": "success", "result": {"task": result}},
]
INTERIM = [(), (103,), (102, 103)]


def test_no_id_and_no_file_is_lost_while_a_provider_changes_each_shape(
    provider: MeddledProvider, settings: Any
) -> None:
    settings.VIDEOJOBS = {**settings.VIDEOJOBS, "MEDIA_CHECK": False}
    outcomes: Counter[str] = Counter()
    creates, checks = cycle([*READ, *OFFERED]), cycle(CHECKED)
    for number, (create, check) in enumerate(islice(zip(creates, checks), JOBS)):
        interim = INTERIM[number % len(INTERIM)]
        provider.expect(
            f"Kitten {number}.",
            Script(
                ["queued", "processing", "completed"],
                create=create,
                check=lambda result, check=check, interim=interim: Answer(  # type: ignore[misc]
                    body=check(result), interim=interim
                ),
            ),
        )
        job = run(submitted(prompt=f"Kitten {number}."))
        [task_id] = [task.id for task in provider.tasks.values() if task.prompt == job.prompt]
        outcomes[job.status] += 1
        if job.status == Status.UNCONFIRMED:
            assert operations.found_ids(job)[0] == task_id, create(task_id)
            assert operations.attach(job, task_id, actor="ann")
            ProviderHold.objects.all().delete()  # as after the preflight
        assert job.provider_task_id == task_id
        job = run(job, times=3)
        assert (job.status, job.error_count) == (Status.COMPLETED, 0), check
        assert job.actual_duration == 3.0
        assert run(job).mirror_status == MirrorStatus.STORED, check

    assert outcomes == {Status.QUEUED: 40, Status.UNCONFIRMED: 20}
    assert len(provider.creates) == VideoJob.objects.count() == JOBS
