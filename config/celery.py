"""The Celery application: `celery --app config.celery worker` and `... beat`; the schedule is CELERY_BEAT_SCHEDULE.

JSON alone, no results, one task at a time a process. A task that runs longer than its limits is ended well before the
broker would hand it out a second time.
"""

import os
from typing import Any

from celery import Celery
from celery.bootsteps import StartStopStep
from celery.signals import setup_logging

from config.alive import TOUCH_EVERY_S, Sign

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

STORE_TIMEOUT_S = 5

app = Celery("meterhouse")
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    result_serializer="json",
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    result_expires=None,  # there are none, so beat need not clean them up
    timezone="UTC",
    # A message is acknowledged before its task runs: a worker that is killed loses the run, the schedule brings the next.
    # A task that may safely run twice says `acks_late=True` itself.
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    # Processes, not threads: only a process can be ended when a task hangs past its hard limit.
    worker_pool="prefork",
    worker_max_tasks_per_child=1000,
    worker_max_memory_per_child=512 * 1024,
    task_soft_time_limit=540,
    task_time_limit=600,
    broker_transport_options={
        # Longer than the longest task, a turn of an ingestion job. All others expire before they are due again.
        "visibility_timeout": 8 * 3600,
        "socket_timeout": STORE_TIMEOUT_S,
        "socket_connect_timeout": STORE_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 25,
        # The others are Redis' alone, this is RabbitMQ's: who queues a task hears that the broker has it. Each transport
        # passes over what it does not know.
        "confirm_publish": True,
    },
    broker_connection_timeout=STORE_TIMEOUT_S,
    broker_connection_retry_on_startup=True,
    # A worker waits for its broker as long as it is away, half a minute at most between two tries.
    broker_connection_max_retries=None,
    # Whoever queues a task hears within seconds that the broker is away.
    task_publish_retry_policy={"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5},
    beat_scheduler="config.schedule:Scheduler",
    beat_max_loop_interval=10,
)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


class SignOfLife(StartStopStep):
    """The worker's main loop, which hands out tasks and hears of their ends, touches ALIVE_FILE."""

    requires = ("celery.worker.components:Timer",)

    def start(self, parent: Any) -> None:
        """Begins with the worker; the timer ends with it."""
        from django.conf import settings

        if settings.ALIVE_FILE:
            sign = Sign(settings.ALIVE_FILE)
            sign.give()
            parent.timer.call_repeatedly(TOUCH_EVERY_S, sign.give)


app.steps["worker"].add(SignOfLife)


@setup_logging.connect
def keep_the_log_format(**_arguments: Any) -> None:
    """Leaves logging to the settings: Celery sets it up its own way only when nobody answers this signal."""
