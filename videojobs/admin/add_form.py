"""The form that submits a job, with the arguments of `VideoJob.objects.submit` as its fields.

Violations of the provider's rules are shown as errors of the fields.
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
    """URLs, one per line; cleans to a list, or None if empty."""

    widget = AdminTextareaWidget(attrs={"rows": 3, "spellcheck": "false"})

    def clean(self, value: Any) -> Any:
        lines = super().clean(value).splitlines()
        return [line.strip() for line in lines if line.strip()] or None


def _url(label: Any) -> forms.CharField:
    attrs = {"inputmode": "url", "spellcheck": "false", "class": "vLargeTextField"}
    widget = AdminTextInputWidget(attrs=attrs)
    return forms.CharField(label=label, required=False, empty_value=None, widget=widget)


class AddForm(forms.Form):
    """A request for a video. No field is required here: `providers.validation` has the rules."""

    # Makes a double click one job, billed once.
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
        help_text=_(
            "Optional. Your own ID, such as order-42: a request with a used key is not sent."
        ),
    )

    def clean_prompt(self) -> str:
        # Browsers submit line breaks as CRLF, and the provider may count both characters.
        prompt: str = self.cleaned_data["prompt"]
        return prompt.replace("\r\n", "\n")

    def clean(self) -> None:
        if self.errors:
            return  # Fields that failed their own validation have no cleaned value.
        request = self._request()
        try:
            validation.check_caller_values(request["key"], None)
            names = ("model", "prompt", "duration")
            asked = {name: request[name] for name in names}
            validation.check_request(**asked, params=self._params())
        except ValidationError as error:
            self._explain(error)

    def submit(self, actor: str) -> VideoJob | None:
        """Submit the request. On an error, such as a quota, add it to the form and return None."""
        try:
            return VideoJob.objects.submit(**self._request(), **self._params(), actor=actor)
        except ValidationError as error:
            self._explain(error)
            return None

    def idempotency_key(self) -> str:
        """The user's key, or one derived from the token, so that a form is one order."""
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
        """Add errors to their fields; errors of fields that the form lacks are non-field errors."""
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
            "description": _("URLs that the provider can open. Enter one reference per line."),
        },
    ),
    (_("Storage and key"), {"fields": ["mirror", "key"]}),
]


def add_view(model_admin: Any, request: HttpRequest) -> HttpResponse:
    if not model_admin.has_add_permission(request):
        raise PermissionDenied
    if request.method == "POST":
        form = AddForm(request.POST)
        if form.is_valid():
            known = VideoJob.objects.filter(key=form.idempotency_key()).exists()
            if job := form.submit(definitions.actor(request)):
                text = _message(form, known=known)
                return _lead_to(model_admin, request, job, text, warn=known)
    else:
        form = AddForm(initial={"token": secrets.token_hex(16)})
    # Django's helpers use only the fields and errors of a ModelForm, which this form has, too.
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


def _message(form: AddForm, *, known: bool) -> Any:
    if not known:
        return _("Submitted as job {}.")
    if form.cleaned_data["key"]:
        return _("Nothing was sent: job {} already uses this key.")
    return _("This form was already submitted as job {}. Open a new form for another video.")


def _name(model_admin: Any, request: HttpRequest, job: VideoJob) -> Any:
    may_look = model_admin.has_view_permission(request, job)
    return links.link(model_admin, job) if may_look else str(job.pk)


def _lead_to(
    model_admin: Any, request: HttpRequest, job: VideoJob, text: Any, *, warn: bool
) -> HttpResponse:
    level = messages.WARNING if warn else messages.SUCCESS
    messages.add_message(request, level, format_html(str(text), _name(model_admin, request, job)))
    if model_admin.has_view_permission(request, job):
        return HttpResponseRedirect(links.url(model_admin, request, "change", job.pk))
    return HttpResponseRedirect(reverse("admin:index", current_app=model_admin.admin_site.name))
