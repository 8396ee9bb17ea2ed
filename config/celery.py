"""The Celery application: JSON only, one task at a time a worker, hard limits below the visibility timeout."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("meterhouse")
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    worker_prefetch_multiplier=1,
    task_time_limit=3300,
    task_soft_time_limit=3000,
    broker_transport_options={"visibility_timeout": 3600},
    broker_connection_retry_on_startup=True,
    timezone="UTC",
)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
