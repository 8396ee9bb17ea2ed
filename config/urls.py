"""Every address of the product. `/admin/topup` and `/admin/sync-credits` stand before the Django admin on purpose."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("search.urls")),
    path("", include("credits.urls")),
    path("admin/", admin.site.urls),
]

handler400 = "config.errors.handler400"
handler404 = "config.errors.handler404"
handler500 = "config.errors.handler500"
