"""System checks of the settings for outputs: where they come from, and where they are stored."""

import re
import ssl
from collections.abc import Iterator

from django.core.checks import CheckMessage, Error
from django.core.files.storage import storages
from django.core.files.storage.handler import InvalidStorageError

from ..conf import conf
from ..http import addresses
from ..http.proxy import Proxy
from ..mirror import media
from ..mirror.destination import lacks_location

_DOMAIN = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def check_outputs() -> Iterator[CheckMessage]:
    yield from _check_hosts()
    yield from _check_ways()
    yield from _check_storage()
    yield from _check_media()


def is_list_of(kind: type, value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(type(item) is kind for item in value)


def _check_hosts() -> Iterator[CheckMessage]:
    hosts: object = conf.ALLOWED_OUTPUT_HOSTS
    if not is_list_of(str, hosts) or not all(map(_DOMAIN.fullmatch, conf.ALLOWED_OUTPUT_HOSTS)):
        yield Error(
            "VIDEOJOBS['ALLOWED_OUTPUT_HOSTS'] must be a list of domains.",
            hint="For example, ['cdn.example.com'], which also allows its subdomains.",
            id="videojobs.E013",
        )
    try:
        addresses.networks(conf.ALLOWED_PRIVATE_NETWORKS)
    except (ValueError, TypeError) as error:
        yield Error(
            f"VIDEOJOBS['ALLOWED_PRIVATE_NETWORKS'] contains an invalid network: {error}.",
            hint="Use a list of networks in CIDR notation, such as ['10.0.0.0/8'].",
            id="videojobs.E009",
        )


def _check_ways() -> Iterator[CheckMessage]:
    for name in ("ALLOW_HTTP_OUTPUTS", "SEND_KEY_FOR_OUTPUTS"):
        if not isinstance(getattr(conf, name), bool):
            yield Error(f"VIDEOJOBS[{name!r}] must be True or False.", id="videojobs.E014")
    try:
        if conf.CA_FILE:
            ssl.create_default_context(cafile=conf.CA_FILE)
    except (OSError, TypeError, ValueError) as error:
        yield Error(
            f"VIDEOJOBS['CA_FILE'] can't be loaded: {error}",
            hint="Use the path of a PEM file with certificates of authorities.",
            id="videojobs.E019",
        )
    try:
        Proxy.configured()
    except (OSError, TypeError, AttributeError):
        yield Error(
            "VIDEOJOBS['PROXY_URL'] must be an http URL.",
            hint="For example, 'http://proxy.example.com:3128'.",
            id="videojobs.E020",
        )


def _check_storage() -> Iterator[CheckMessage]:
    try:
        storage = storages[str(conf.STORAGE)]
    except InvalidStorageError as error:
        yield Error(
            f"VIDEOJOBS['STORAGE'] must be a valid alias in STORAGES: {error}", id="videojobs.E010"
        )
    else:
        if lacks_location(storage):
            yield Error(
                "Outputs would be written to the current directory of each worker.",
                hint="Set MEDIA_ROOT, or the storage's option 'location'.",
                id="videojobs.E018",
            )
    directory: object = conf.UPLOAD_TO
    if (
        not isinstance(directory, str)
        or directory.startswith("/")
        # Storages normalize such names, and then save a file under another name than was given.
        or (directory and not {"", ".", ".."}.isdisjoint(directory.rstrip("/").split("/")))
        or not directory.isprintable()
    ):
        yield Error(
            "VIDEOJOBS['UPLOAD_TO'] must be a relative directory inside the storage.",
            id="videojobs.E011",
        )


def _check_media() -> Iterator[CheckMessage]:
    wanted: object = conf.MEDIA_CHECK
    if not (wanted is None or isinstance(wanted, bool)):
        yield Error("VIDEOJOBS['MEDIA_CHECK'] must be True, False or None.", id="videojobs.E014")
    elif wanted and not media.is_installed():
        yield Error(
            "VIDEOJOBS['MEDIA_CHECK'] is True, but PyAV is not installed.",
            hint="Install videojobs[media], or set MEDIA_CHECK to None to skip the check.",
            id="videojobs.E015",
        )
