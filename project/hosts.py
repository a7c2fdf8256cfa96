"""The site's names, from one environment variable for two settings of Django."""

import re
from collections.abc import Iterable, Iterator

from django.core.exceptions import ImproperlyConfigured

# Browsers send names in ASCII: bücher.example as xn--bcher-kva.example.
_NAME = re.compile(r"(\*|\*?\.?[\w.-]+|\[[\da-f:.]+\])(:\d{1,5})?", re.ASCII)


def allowed_hosts(names: Iterable[str]) -> list[str]:
    """`ALLOWED_HOSTS`, whose entries have no port; `.example.com` includes its subdomains."""
    return [host for host, _port in _parts(names)]


def trusted_origins(names: Iterable[str]) -> list[str]:
    """`CSRF_TRUSTED_ORIGINS`, whose entries have a scheme, and `*` for subdomains.

    `*`, which allows any host, adds none: any site could post forms.
    """
    return [
        f"https://{'*' if host.startswith('.') else ''}{host}{port}"
        for host, port in _parts(names)
        if host != "*"
    ]


def _parts(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    for name in filter(None, (name.strip().lower() for name in names)):
        # An IPv6 address without brackets has no port.
        bracketed = f"[{name}]" if name.count(":") > 1 and "[" not in name else name
        match = _NAME.fullmatch(bracketed)
        if match is None:
            raise ImproperlyConfigured(
                f"DJANGO_ALLOWED_HOSTS must be names of hosts, separated by commas: {name!r} is "
                "none. For example, www.example.com, or .example.com with all subdomains."
            )
        host, port = match.groups(default="")
        yield host if host == "*" else host.removeprefix("*"), port
