"""The URLs of the public views, for a site to include."""

from django.urls import path

from . import views

app_name = "videojobs"
urlpatterns = [path("<uuid:job_id>/status/", views.status, name="status")]
