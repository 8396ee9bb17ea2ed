"""System checks of background work: `manage.py check --deploy`."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's own name
from django.db import OperationalError
from django_celery_beat.models import PeriodicTask

from config.celery import app


@register("config", deploy=True)
def check_broker(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The broker's Redis is not the money's: its queues may fill or be purged."""
    broker, money = settings.CELERY_BROKER_URL, settings.REDIS_URL.split(",")
    if broker in money:
        return [
            Error(
                "REDIS_URL and CELERY_BROKER_URL are the same database.",
                hint="Purging the broker would clear live balances. Give the broker a server of its own.",
                id="config.E001",
            )
        ]
    if urlsplit(broker).netloc in [urlsplit(url).netloc for url in money]:
        return [
            Warning(
                "REDIS_URL and CELERY_BROKER_URL are on the same server.",
                hint="Under load the broker and the money share its memory. Give the broker a server of its own.",
                id="config.W002",
            )
        ]
    return []


@register("config", deploy=True)
def check_task_limits(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Every task is ended before the broker takes its worker for dead and hands it to another."""
    app.loader.import_default_modules()
    visible_s = app.conf.broker_transport_options["visibility_timeout"]
    found: list[CheckMessage] = []
    for name, task in sorted(app.tasks.items()):
        if name.startswith("celery."):
            continue
        soft_s = task.soft_time_limit or app.conf.task_soft_time_limit
        hard_s = task.time_limit or app.conf.task_time_limit
        if not soft_s or not hard_s or not soft_s < hard_s < visible_s:
            found.append(
                Error(
                    f"{name} is asked to end after {soft_s} s, is ended after {hard_s} s and is handed out again after "
                    f"{visible_s} s.",
                    hint="Each must be less than the next.",
                    id="config.E003",
                )
            )
    return found


@register("config", deploy=True)
def check_schedule(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Everything that is to run on a schedule does."""
    wanted = set(settings.CELERY_BEAT_SCHEDULE)
    try:
        known = dict(PeriodicTask.objects.filter(name__in=wanted).values_list("name", "enabled"))
    except OperationalError as error:
        hint = "Start it, then check again."
        return [Error(f"PostgreSQL could not be asked: {type(error).__name__}.", hint=hint, id="config.E010")]
    found: list[CheckMessage] = []
    if missing := sorted(wanted - set(known)):
        found.append(
            Warning(
                f"The schedule lacks: {', '.join(missing)}.",
                hint="Start `beat`, which adds them.",
                id="config.W004",
            )
        )
    if off := sorted(name for name, enabled in known.items() if not enabled):
        found.append(
            Warning(
                f"Switched off in the schedule: {', '.join(off)}.",
                hint="Switch them on again in the admin, under Periodic tasks.",
                id="config.W005",
            )
        )
    return found
