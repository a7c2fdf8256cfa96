"""The search of the list: by identifier if any job has it, else by words of the prompt.

No search scans the whole table: identifiers have indexes, and prompts are searched in the newest
jobs only.
"""

import re
from typing import Any

from django.db.models import Q, QuerySet

from ... import conditions

#: The number of newest jobs that are searched by prompt, which takes about 0.25 s.
NEWEST = 50_000
#: Up to this number, results are listed by ID, so that counting and sorting don't search again.
FEW = 5_000
#: Limits the cost of a pasted prompt; its first words find the job as well.
_MOST_WORDS, _LONGEST_WORD = 20, 200
_LONGEST_IDENTIFIER = 512

_WORD = re.compile(r'"([^"]+)"|(\S+)')


def found(jobs: QuerySet[Any], text: str, *, among: QuerySet[Any]) -> QuerySet[Any]:
    """The filtered and sorted `jobs` that match the text.

    The text is an identifier only if it matches one of `among`, the jobs that the user may view.
    """
    # PostgreSQL rejects NUL.
    text = text.replace("\0", " ").strip()
    if not text:
        return jobs
    if len(text) <= _LONGEST_IDENTIFIER:
        for named in (_named(text), _beginning(text)):
            if among.filter(named).exists():
                return jobs.filter(named)
    return _with_words(jobs, _words(text))


def _named(text: str) -> Q:
    return Q(provider_task_id=text) | Q(key=text)


def _beginning(text: str) -> Q:
    """The text is a prefix of a provider ID or key, or the job ID or a prefix of it."""
    named = Q(provider_task_id__startswith=text) | Q(key__startswith=text)
    ids = conditions.id_begins(text)
    return named | ids if ids else named


def _words(text: str) -> list[str]:
    words = (phrase or word for phrase, word in _WORD.findall(text))
    return [word[:_LONGEST_WORD] for word in words][:_MOST_WORDS]


def _with_words(jobs: QuerySet[Any], words: list[str]) -> QuerySet[Any]:
    """The newest jobs whose prompt has all the words."""
    by_age = jobs.order_by("-created_at")
    # A separate query: for a subquery, the planner expects a third of the table to match.
    oldest = by_age.values_list("created_at", flat=True)[NEWEST - 1 : NEWEST].first()
    newest = jobs.filter(created_at__gte=oldest) if oldest else jobs
    matching = newest
    for word in words:
        matching = matching.filter(_has(word))
    ids = list(matching.order_by().values_list("pk", flat=True)[: FEW + 1])
    return matching if len(ids) > FEW else newest.filter(pk__in=ids)


def _has(word: str) -> Q:
    """The prompt contains the word, case-insensitively.

    SQLite, and PostgreSQL with the locale C, fold the case of ASCII letters only.
    """
    if word.isascii():
        return Q(prompt__icontains=word)
    written = {word, word.lower(), word.upper(), word.capitalize()}
    return Q(*(("prompt__icontains", form) for form in sorted(written)), _connector=Q.OR)
