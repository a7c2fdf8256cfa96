"""What other code can listen to.

Every signal is sent after the commit that made it true, to all receivers, whatever one of them
raises. The sender is `VideoJob`; every receiver gets `job`. Receivers run in the worker: keep
them short, or let them start a task of their own.
"""

from django.dispatch import Signal

#: Any change of `status`; also gets `old` and `new`.
status_changed = Signal()
#: The provider finished the video. It is not in storage yet: see `output_stored`.
job_completed = Signal()
#: The provider's verdict is that there is no video, or it refused the request; see `job.error`.
job_failed = Signal()
#: The job is past its deadline without a verdict. It is still tracked, more slowly.
job_overdue = Signal()
#: The video is complete, checked and in storage: `job.output`.
output_stored = Signal()
#: The video could not be fetched, and nothing tries again by itself; also gets `reason`.
mirror_failed = Signal()
#: Nobody knows whether the create call arrived. A person must decide; also gets `reason`.
submission_unconfirmed = Signal()
