import inspect
import json
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from videojobs.management.base import ACTOR, JobCommand, in_words
from videojobs.managers import VideoJobQuerySet
from videojobs.models import VideoJob

# The names that have an option of their own, or none: they are no parameters of the provider.
_OWN_NAMES = frozenset(inspect.signature(VideoJobQuerySet.submit).parameters)


class Command(JobCommand):
    help = (
        "Submit a video job, which the provider bills, and print its id. A worker sends it; "
        "see videojobs_watch. The same --key again prints the job that has it, and pays nothing."
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
            help="a parameter of the provider, again for each: "
            """--param 'referenceImages=["https://example.com/cat.png"]'""",
        )
        parser.add_argument("--key", metavar="K", help="your own name for the job, to pay once")
        parser.add_argument(
            "--metadata", default="{}", metavar="JSON", help="your own data: a JSON object"
        )
        parser.add_argument(
            "--no-mirror",
            action="store_false",
            dest="mirror",
            help="leave the video where the provider puts it",
        )

    def handle(self, *, prompt: str, params: list[str], metadata: str, **options: Any) -> None:
        own = _parse("metadata", metadata)
        if not isinstance(own, dict):
            raise CommandError("metadata: This must be a JSON object.")
        known = {name: options[name] for name in ("duration", "model", "key", "mirror")}
        parameters = _parameters(params, ratio=options["ratio"])
        try:
            job = VideoJob.objects.submit(prompt, metadata=own, actor=ACTOR, **known, **parameters)
        except ValidationError as error:
            raise CommandError(in_words(error)) from error
        self.stdout.write(str(job.pk))


def _parameters(pairs: list[str], *, ratio: str | None) -> dict[str, Any]:
    """The provider's parameters from `NAME=JSON` pairs, each name once."""
    found: dict[str, Any] = {} if ratio is None else {"ratio": ratio}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"--param: {pair!r:.100} is not NAME=JSON.")
        if name in _OWN_NAMES:
            raise CommandError(f"{name}: This is not a parameter of the provider; see --help.")
        if name in found:
            raise CommandError(f"{name}: This is given twice.")
        found[name] = _parse(name, text)
    return found


def _parse(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(
            f"{name}: {text!r:.100} is not JSON. Text needs its quotes: 'NAME=\"text\"'."
        ) from error
