from django.contrib import admin
from django.urls import include, path

from .media import media

urlpatterns = [
    path("", include("project.showcase.urls")),
    path("jobs/", include("videojobs.urls")),
    path("admin/", admin.site.urls),
    path("media/<path:path>", media),
]
