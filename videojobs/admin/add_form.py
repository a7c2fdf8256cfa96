"""The form that submits a job: it asks for what `submit` of the record takes, which alone writes.

The provider's rules are said at their fields; what is typed stays there as long as it is wrong.
"""

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.admin import helpers
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.core.exceptions import NON_FIELD_ERRORS, PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from ..conf import conf
from ..models import VideoJob
from ..providers import validation
from . import html, links
from .actions import definitions

_PARAMS = ("ratio", "resolution", "referenceImages", "referenceVideos", "referenceAudios")
_FRAMES = ("first_frame", "last_frame")


def _models() -> Iterable[tuple[str, str]]:
    return [(name, name) for name in conf.MODELS]


def _ratios() -> Iterable[tuple[str, Any]]:
    known = (ratio for model in conf.MODELS.values() for ratio in model.get("ratios", ()))
    return [("", _("the provider's default")), *((ratio, ratio) for ratio in dict.fromkeys(known))]


class UrlsField(forms.CharField):
    """URLs, one a line; None without one."""

    widget = AdminTextareaWidget(attrs={"rows": 3, "spellcheck": "false"})

    def clean(self, value: Any) -> Any:
        lines = super().clean(value).splitlines()
        return [line.strip() for line in lines if line.strip()] or None


def _url(label: Any) -> forms.CharField:
    attrs = {"inputmode": "url", "spellcheck": "false", "class": "vLargeTextField"}
    widget = AdminTextInputWidget(attrs=attrs)
    return forms.CharField(label=label, required=False, empty_value=None, widget=widget)


class AddForm(forms.Form):
    """A request for a video. What is required, and what is allowed, `validation` says alone."""

    # Sent twice, it is one job: whoever clicks twice pays once.
    token = forms.CharField(widget=forms.HiddenInput, max_length=64)
    model = forms.ChoiceField(label=_("Model"), choices=_models, required=False)
    prompt = forms.CharField(
        label=_("Prompt"),
        required=False,
        strip=False,
        widget=AdminTextareaWidget(attrs={"rows": 6}),
    )
    duration = forms.IntegerField(
        label=_("Duration"), required=False, initial=5, help_text=_("Seconds.")
    )
    ratio = forms.ChoiceField(label=_("Ratio"), choices=_ratios, required=False)
    resolution = forms.ChoiceField(
        label=_("Resolution"),
        choices=[("", _("the provider's default")), ("720p", "720p")],
        required=False,
    )
    first_frame = _url(_("First frame"))
    last_frame = _url(_("Last frame"))
    referenceImages = UrlsField(label=_("Reference images"), required=False)
    referenceVideos = UrlsField(label=_("Reference videos"), required=False)
    referenceAudios = UrlsField(label=_("Reference audios"), required=False)
    mirror = forms.BooleanField(label=_("Keep the video in storage"), required=False, initial=True)
    key = forms.CharField(
        label=_("Key"),
        required=False,
        widget=AdminTextInputWidget,
        help_text=_("Your own, such as order-42: a second request with it is not sent. Optional."),
    )

    def clean_prompt(self) -> str:
        # Browsers send a line's end as two characters, and the provider may count them.
        prompt: str = self.cleaned_data["prompt"]
        return prompt.replace("\r\n", "\n")

    def clean(self) -> None:
        if self.errors:
            return  # what could not be read at all
        request = self._request()
        try:
            validation.check_caller_values(request["key"], None)
            names = ("model", "prompt", "duration")
            asked = {name: request[name] for name in names}
            validation.check_request(**asked, params=self._params())
        except ValidationError as error:
            self._explain(error)

    def submit(self, actor: str) -> VideoJob | None:
        """Submit what was asked for; None with errors at the form, such as of a limit."""
        try:
            return VideoJob.objects.submit(**self._request(), **self._params(), actor=actor)
        except ValidationError as error:
            self._explain(error)
            return None

    def idempotency_key(self) -> str:
        """The caller's own key, or the one that makes this very form one order."""
        return self.cleaned_data["key"] or f"form-{self.cleaned_data['token']}"

    def _request(self) -> dict[str, Any]:
        asked = {
            name: self.cleaned_data[name] for name in ("model", "prompt", "duration", "mirror")
        }
        return {**asked, "key": self.idempotency_key()}

    def _params(self) -> dict[str, Any]:
        params = {name: self.cleaned_data[name] or None for name in _PARAMS}
        for ours, theirs in zip(_FRAMES, conf.FRAME_FIELDS):
            params[theirs] = self.cleaned_data[ours]
        return params

    def _explain(self, error: ValidationError) -> None:
        """Put errors at their fields; what has none here is an error of the form."""
        ours = dict(zip(conf.FRAME_FIELDS, _FRAMES))
        for name, errors in _by_field(error).items():
            field = ours.get(name, name)
            self.add_error(field if field in self.fields else None, errors)


def _by_field(error: ValidationError) -> Mapping[str, Any]:
    return getattr(error, "error_dict", None) or {NON_FIELD_ERRORS: error.error_list}


_REFERENCES = ("referenceImages", "referenceVideos", "referenceAudios")
FIELDSETS: Any = [
    (None, {"fields": ["token", "model", "prompt", "duration", "ratio", "resolution"]}),
    (
        _("Frames and references"),
        {
            "fields": [*_FRAMES, *_REFERENCES],
            "classes": ["collapse"],
            "description": _("URLs that the provider can open. Of references, one a line."),
        },
    ),
    (_("Afterwards"), {"fields": ["mirror", "key"]}),
]


def add_view(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Show the form; submit what it asks for, once, and lead to the job."""
    if not model_admin.has_add_permission(request):
        raise PermissionDenied
    if request.method == "POST":
        form = AddForm(request.POST)
        if form.is_valid():
            known = VideoJob.objects.filter(key=form.idempotency_key()).exists()
            if job := form.submit(definitions.actor(request)):
                told = _told(form, known=known)
                return _lead_to(model_admin, request, job, told, warn=known)
    else:
        form = AddForm(initial={"token": secrets.token_hex(16)})
    # Django's own helpers ask no more of a form than its fields and errors.
    shown = helpers.AdminForm(cast(Any, form), FIELDSETS, {}, model_admin=model_admin)
    context = {
        **model_admin.admin_site.each_context(request),
        "title": _("Add %s") % model_admin.opts.verbose_name,
        "subtitle": None,
        "adminform": shown,
        "object_id": None,
        "original": None,
        "is_popup": False,
        "to_field": None,
        "media": model_admin.media + shown.media,
        "inline_admin_formsets": [],
        "errors": helpers.AdminErrorList(cast(Any, form), []),
        "preserved_filters": model_admin.get_preserved_filters(request),
        **html.notice_context(),
    }
    response: HttpResponse = model_admin.render_change_form(request, context, add=True)
    return response


def _told(form: AddForm, *, known: bool) -> Any:
    if not known:
        return _("Submitted as job {}.")
    if form.cleaned_data["key"]:
        return _("Nothing was sent: the key belongs to job {} already.")
    return _("This form was sent already, as job {}. For another one, open the form anew.")


def _name(model_admin: Any, request: HttpRequest, job: VideoJob) -> Any:
    may_look = model_admin.has_view_permission(request, job)
    return links.link(model_admin, job) if may_look else str(job.pk)


def _lead_to(
    model_admin: Any, request: HttpRequest, job: VideoJob, told: Any, *, warn: bool
) -> HttpResponse:
    level = messages.WARNING if warn else messages.SUCCESS
    messages.add_message(request, level, format_html(str(told), _name(model_admin, request, job)))
    if model_admin.has_view_permission(request, job):
        return HttpResponseRedirect(links.url(model_admin, request, "change", job.pk))
    return HttpResponseRedirect(reverse("admin:index", current_app=model_admin.admin_site.name))
