"""Signals sent when a job changes.

Each signal is sent after the commit of the change, to all receivers, even if one of them raises.
The sender is `VideoJob`; each receiver gets `job`. Receivers run in the process that changes the
job, usually a worker: hand slow work to a task.
"""

from django.dispatch import Signal

#: Any change of `status`; also gets `old` and `new`.
status_changed = Signal()
#: The provider finished the video. It is not stored yet; see `output_stored`.
job_completed = Signal()
#: There is no video: the generation failed or was cancelled, or the provider refused the request;
#: see `job.error`.
job_failed = Signal()
#: There was no final status within `GIVE_UP_AFTER`. An operator can resume it; also gets `reason`.
job_expired = Signal()
#: The job is past its deadline without a result. It is polled less often from now on.
job_overdue = Signal()
#: The video is complete, checked and stored: `job.output`.
output_stored = Signal()
#: The video could not be fetched, and there are no more automatic retries; also gets `reason`.
mirror_failed = Signal()
#: It is unknown whether the create request arrived. An operator must decide; also gets `reason`.
submission_unconfirmed = Signal()
