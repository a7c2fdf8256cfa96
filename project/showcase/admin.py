from django.contrib import admin

from .models import Postcard


@admin.register(Postcard)
class PostcardAdmin(admin.ModelAdmin):
    list_display = ["title", "job", "created_at", "published_at", "problem"]
