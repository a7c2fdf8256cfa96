import inspect
import json
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from videojobs.management.base import ACTOR, JobCommand, in_words
from videojobs.managers import VideoJobQuerySet
from videojobs.models import VideoJob

# The arguments of `submit`, which --param can't set: they are not parameters of the provider.
_OWN_NAMES = frozenset(inspect.signature(VideoJobQuerySet.submit).parameters)


class Command(JobCommand):
    help = (
        "Submit a video job, which the provider bills, and print its ID. A worker sends the "
        "request; use videojobs_watch to follow the progress. If a job with the same --key "
        "exists, its ID is printed and nothing is billed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("prompt", metavar="PROMPT")
        parser.add_argument("--duration", type=int, metavar="N", help="seconds of video")
        parser.add_argument("--model", metavar="M", help="default: the first one in MODELS")
        parser.add_argument("--ratio", metavar="R", help="such as 16:9")
        parser.add_argument(
            "--param",
            action="append",
            default=[],
            dest="params",
            metavar="NAME=JSON",
            help="a parameter of the provider; can be repeated: "
            """--param 'referenceImages=["https://example.com/cat.png"]'""",
        )
        parser.add_argument("--key", metavar="K", help="a unique idempotency key")
        parser.add_argument(
            "--metadata", default="{}", metavar="JSON", help="custom data, as a JSON object"
        )
        parser.add_argument(
            "--no-mirror",
            action="store_false",
            dest="mirror",
            help="don't copy the video to the site's storage",
        )

    def handle(self, *, prompt: str, params: list[str], metadata: str, **options: Any) -> None:
        custom = _parse("metadata", metadata)
        if not isinstance(custom, dict):
            raise CommandError("metadata: This must be a JSON object.")
        known = {name: options[name] for name in ("duration", "model", "key", "mirror")}
        parameters = _parameters(params, ratio=options["ratio"])
        try:
            job = VideoJob.objects.submit(
                prompt, metadata=custom, actor=ACTOR, **known, **parameters
            )
        except ValidationError as error:
            raise CommandError(in_words(error)) from error
        self.stdout.write(str(job.pk))


def _parameters(pairs: list[str], *, ratio: str | None) -> dict[str, Any]:
    """Parse `NAME=JSON` pairs. Raises `CommandError` for duplicate names."""
    found: dict[str, Any] = {} if ratio is None else {"ratio": ratio}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"--param: {pair!r:.100} is not in the form NAME=JSON.")
        if name in _OWN_NAMES:
            raise CommandError(f"{name}: This is not a parameter of the provider; see --help.")
        if name in found:
            raise CommandError(f"{name}: This parameter is given twice.")
        found[name] = _parse(name, text)
    return found


def _parse(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(
            f"{name}: {text!r:.100} is not valid JSON. Strings need double quotes: 'NAME=\"text\"'."
        ) from error
