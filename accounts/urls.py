"""Addresses of accounts. They stand before the Django admin, which takes the rest of `/admin/`."""

from django.urls import path

from accounts import api

urlpatterns = [path("admin/revoke-key", api.RevokeKeyView.as_view(), name="admin-revoke-key")]
