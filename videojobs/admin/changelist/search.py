"""The search of the list: an identifier if any job has it, else words of the prompt.

No search reads the whole table: identifiers are found by their indexes, on whatever day they were
given, and prompts are looked through among the newest jobs only.
"""

import re
from typing import Any

from django.db.models import Q, QuerySet

from ... import conditions

#: How many of the newest jobs have their prompts looked through: a quarter of a second's work.
NEWEST = 50_000
#: So few results are gone on with by their ids: to count, sort and show them needs no second look.
FEW = 5_000
#: A pasted prompt is found by its first words as well, and a hostile one costs no more.
_MOST_WORDS, _LONGEST_WORD = 20, 200
_LONGEST_IDENTIFIER = 255

_WORD = re.compile(r'"([^"]+)"|(\S+)')


def found(jobs: QuerySet[Any], text: str, *, among: QuerySet[Any]) -> QuerySet[Any]:
    """Those of the jobs, filtered and sorted already, that a person may mean by the text.

    `among` are all that he may know of: what names none of these is no identifier to him.
    """
    # PostgreSQL takes no NUL.
    text = text.replace("\0", " ").strip()
    if not text:
        return jobs
    if len(text) <= _LONGEST_IDENTIFIER:
        for named in (_named(text), _beginning(text)):
            if among.filter(named).exists():
                return jobs.filter(named)
    return _telling(jobs, _words(text))


def _named(text: str) -> Q:
    """That the text is the provider's id or the caller's key of a job."""
    return Q(provider_task_id=text) | Q(key=text)


def _beginning(text: str) -> Q:
    """That the text begins one of these, or is or begins the job's own id."""
    named = Q(provider_task_id__startswith=text) | Q(key__startswith=text)
    ids = conditions.id_range(text)
    return named | Q(pk__range=ids) if ids else named


def _words(text: str) -> list[str]:
    words = (phrase or word for phrase, word in _WORD.findall(text))
    return [word[:_LONGEST_WORD] for word in words][:_MOST_WORDS]


def _telling(jobs: QuerySet[Any], words: list[str]) -> QuerySet[Any]:
    """The newest jobs whose prompt has all the words."""
    by_age = jobs.order_by("-created_at")
    # A value of its own: with a subquery in its place, the planner expects a third of the table.
    oldest = by_age.values_list("created_at", flat=True)[NEWEST - 1 : NEWEST].first()
    newest = jobs.filter(created_at__gte=oldest) if oldest else jobs
    telling = newest
    for word in words:
        telling = telling.filter(_has(word))
    ids = list(telling.order_by().values_list("pk", flat=True)[: FEW + 1])
    return telling if len(ids) > FEW else newest.filter(pk__in=ids)


def _has(word: str) -> Q:
    """That a prompt has the word in it, in capitals or not.

    SQLite, and PostgreSQL with the locale C, know the capitals of ASCII only.
    """
    if word.isascii():
        return Q(prompt__icontains=word)
    written = {word, word.lower(), word.upper(), word.capitalize()}
    return Q(*(("prompt__icontains", form) for form in sorted(written)), _connector=Q.OR)
