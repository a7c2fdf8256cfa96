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
    # Made with the page: whoever sends it twice has one postcard, and pays once.
    key = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)

    class Meta:
        model = Postcard
        fields = ["title", "text"]
        widgets = {"text": forms.Textarea(attrs={"rows": 3})}

    def clean_text(self) -> str:
        # Browsers send a line's end as two characters, and the provider may count them.
        text: str = self.cleaned_data["text"]
        return text.replace("\r\n", "\n")

    def submit(self) -> Postcard | None:
        """The postcard with its job; None, with the reasons at the fields, if it was refused."""
        given = self.cleaned_data
        # Whoever goes back and writes something else wants another one.
        key = uuid.uuid5(given["key"], f"{given['title']}\n{given['text']}\n{given['ratio']}")
        try:
            # Together, so that no receiver hears of the job before its postcard is there.
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
