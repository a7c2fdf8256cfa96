"""Models shared by all jobs of an API key: provider holds and the quota lock."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..conf import DEFAULT_ACCOUNT
from .fields import ExactCharField


class ProviderHold(models.Model):
    """A time during which no job of an account and key calls the provider; see `holds`."""

    class Kind(models.TextChoices):
        # The provider limits the rate (HTTP 429).
        LIMITED = "limited", _("rate limit")
        # The provider rejects the key (HTTP 401, 402, 403).
        REJECTED = "rejected", _("key rejected")
        # A setting is wrong, such as an empty key: no request can be sent.
        SETTING = "setting", _("wrong setting")
        # No connection can be established.
        UNREACHABLE = "unreachable", _("unreachable")
        # One create request had no clear answer. Jobs don't wait, but a preflight is sent first.
        SUSPECT = "suspect", _("suspect")
        # Another create request had no clear answer, or the preflight failed.
        FAILING = "failing", _("failing")
        # Different create requests in a row were refused for the same unknown reason. It ends when
        # an operator releases it, or when a create request is accepted.
        REFUSED = "refused", _("requests refused")

    class Scope(models.TextChoices):
        EVERYTHING = "everything", _("everything")
        CREATES = "creates", _("create requests")
        # A count of refusals, which becomes a hold of create requests.
        REFUSALS = "refusals", _("refused create requests")

    account = ExactCharField(max_length=100, default=DEFAULT_ACCOUNT, editable=False)
    key_digest = models.CharField(max_length=64, editable=False)
    scope = models.CharField(max_length=10, choices=Scope)
    kind = models.CharField(max_length=11, choices=Kind)
    reason = models.TextField()
    since = models.DateTimeField()
    until = models.DateTimeField(help_text=_("When a trial call may be made."))
    trial_until = models.DateTimeField(null=True, blank=True, editable=False)
    count = models.PositiveIntegerField(default=1, help_text=_("Consecutive refusals."))
    reset_at = models.DateTimeField(null=True, blank=True)
    # What the counted refusals have in common, and digests of the refused requests.
    refusal = models.CharField(max_length=200, blank=True)
    requests = models.JSONField(default=list, blank=True)

    class Meta:
        verbose_name = _("provider hold")
        verbose_name_plural = _("provider holds")
        constraints = [
            models.UniqueConstraint(
                fields=["account", "key_digest", "scope"], name="providerhold_account_key_scope"
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.reason}"


class QuotaLock(models.Model):
    """A single row that submitters update one at a time, to serialize their quota checks."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    passed = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name = _("spend guard")
        verbose_name_plural = _("spend guard")

    def __str__(self) -> str:
        return f"{self.passed} passed"
