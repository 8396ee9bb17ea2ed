"""Addresses of credits. The `/admin/…` ones stand before the Django admin, which takes the rest of `/admin/`."""

from django.urls import path

from credits import alert_api, api, metrics

urlpatterns = [
    path("metrics", metrics.view, name="metrics"),
    path("api/v1/credits", api.CreditsView.as_view(), name="credits"),
    path("api/v1/usage", api.UsageView.as_view(), name="usage"),
    path("api/v1/alerts", alert_api.AlertsView.as_view(), name="alerts"),
    path("api/v1/alerts/log", alert_api.AlertLogView.as_view(), name="alert-log"),
    path("api/v1/alerts/secret", alert_api.AlertSecretView.as_view(), name="alert-secret"),
    path("api/v1/alerts/test", alert_api.AlertTestView.as_view(), name="alert-test"),
    path("admin/topup", api.TopUpView.as_view(), name="admin-topup"),
    path("admin/sync-credits", api.SyncCreditsView.as_view(), name="admin-sync-credits"),
]
