import uuid

from django import forms
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from videojobs.models import VideoJob

from .models import Postcard

RATIOS = [("16:9", _("wide")), ("1:1", _("square")), ("9:16", _("tall"))]


class PostcardForm(forms.ModelForm):
    ratio = forms.ChoiceField(label=_("shape"), choices=RATIOS)
    # Generated with the page, so that submitting it twice creates and bills one video.
    key = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)

    class Meta:
        model = Postcard
        fields = ["title", "text"]
        widgets = {"text": forms.Textarea(attrs={"rows": 3})}

    def clean_text(self) -> str:
        # Browsers send line breaks as CRLF, which counts as two characters.
        text: str = self.cleaned_data["text"]
        return text.replace("\r\n", "\n")

    def submit(self) -> Postcard | None:
        """The postcard with its job; None, with errors added to the form, if it was rejected."""
        given = self.cleaned_data
        # After going back in the browser, changed values create a new postcard.
        key = uuid.uuid5(given["key"], f"{given['title']}\n{given['text']}\n{given['ratio']}")
        try:
            # One transaction, so that receivers never see the job without its postcard.
            with transaction.atomic():
                job = VideoJob.objects.submit(
                    given["text"],
                    duration=5,
                    ratio=given["ratio"],
                    key=f"gallery-{key}",
                    metadata={"gallery": True},
                )
                texts = {"title": given["title"], "text": given["text"]}
                return Postcard.objects.get_or_create(job=job, defaults=texts)[0]
        except ValidationError as error:
            for name, messages in error.message_dict.items():
                field = {"prompt": "text"}.get(name, name)
                self.add_error(field if field in self.fields else None, messages)
            return None
