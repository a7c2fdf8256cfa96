from django.urls import path

from . import views

app_name = "showcase"
urlpatterns = [
    path("", views.gallery, name="gallery"),
    path("favicon.ico", views.icon),
]
