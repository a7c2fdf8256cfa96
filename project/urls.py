from django.conf import settings
from django.conf.urls.static import static
from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("admin/", admin.site.urls),
    # In development only: a web server or the object storage serves them elsewhere.
    *static(settings.MEDIA_URL, document_root=settings.MEDIA_ROOT),
]
