"""What a site includes to tell its visitors of their jobs."""

from django.urls import path

from . import views

app_name = "videojobs"
urlpatterns = [path("<uuid:job_id>/status/", views.status, name="status")]
