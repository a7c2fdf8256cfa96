"""What all jobs of an API key share: holds of the provider, and the guard of the spend limits."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class ProviderHold(models.Model):
    """The provider wants to be left alone, by all jobs of one API key; see `holds`."""

    class Kind(models.TextChoices):
        # It asked for it (HTTP 429).
        LIMITED = "limited", _("rate limit")
        # It takes no call with this key (HTTP 401, 402, 403).
        REJECTED = "rejected", _("key rejected")
        # No connection stands.
        UNREACHABLE = "unreachable", _("unreachable")
        # One create call had no clear answer: nobody waits, but a harmless call goes first.
        SUSPECT = "suspect", _("suspect")
        # So it was again, or the harmless call had none.
        FAILING = "failing", _("failing")

    class Scope(models.TextChoices):
        EVERYTHING = "everything", _("everything")
        CREATES = "creates", _("create calls")

    key_digest = models.CharField(max_length=64, editable=False)
    scope = models.CharField(max_length=10, choices=Scope)
    kind = models.CharField(max_length=11, choices=Kind)
    reason = models.TextField()
    since = models.DateTimeField()
    until = models.DateTimeField(help_text=_("When one call finds out whether it is over."))
    count = models.PositiveIntegerField(default=1, help_text=_("Refusals in a row."))
    reset_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("provider hold")
        verbose_name_plural = _("provider holds")
        constraints = [
            models.UniqueConstraint(fields=["key_digest", "scope"], name="providerhold_key_scope")
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.reason}"


class QuotaLock(models.Model):
    """One row that submitters change in turn, so that each counts what the last one added."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    passed = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name = _("spend guard")
        verbose_name_plural = _("spend guard")

    def __str__(self) -> str:
        return f"{self.passed} passed"
