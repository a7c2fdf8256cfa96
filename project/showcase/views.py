from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.templatetags.static import static
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from .access import may_submit
from .forms import PostcardForm
from .models import Postcard

EXAMPLE = {
    "title": _("Greetings from the meadow"),
    "text": _("A kitten in the grass at sunrise, the camera follows it slowly"),
}
PER_PAGE = 12


@require_http_methods(["GET", "HEAD", "POST"])
def gallery(request: HttpRequest) -> HttpResponse:
    """All postcards, and the form for a new one."""
    if request.method == "POST":
        if not may_submit(request):
            if request.user.is_authenticated:
                raise PermissionDenied
            return redirect_to_login(request.path)
        form = PostcardForm(request.POST)
        if form.is_valid() and form.submit():
            return redirect(reverse("showcase:gallery") + "#gallery")
    else:
        form = PostcardForm(initial=EXAMPLE)
    postcards = Paginator(Postcard.objects.select_related("job"), PER_PAGE)
    context = {
        "form": form if may_submit(request) else None,
        "postcards": postcards.get_page(request.GET.get("page")),
    }
    return render(request, "showcase/gallery.html", context)


def icon(request: HttpRequest) -> HttpResponse:
    """Browsers request /favicon.ico on pages without an icon, such as the admin's."""
    return redirect(static("showcase/icon.svg"))
