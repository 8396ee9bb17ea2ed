"""Addresses of credits. The `/admin/…` ones stand before the Django admin, which takes the rest of `/admin/`."""

from django.urls import path

from credits import api

urlpatterns = [
    path("api/v1/credits", api.CreditsView.as_view(), name="credits"),
    path("api/v1/usage", api.UsageView.as_view(), name="usage"),
    path("admin/topup", api.TopUpView.as_view(), name="admin-topup"),
    path("admin/sync-credits", api.SyncCreditsView.as_view(), name="admin-sync-credits"),
]
