"""Beat's schedule: kept in Postgres, edited in the admin, and filled from CELERY_BEAT_SCHEDULE when beat starts."""

from collections.abc import Mapping
from typing import Any

import structlog
from django.conf import settings
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from config.alive import Sign

log = structlog.get_logger(__name__)


class Scheduler(DatabaseScheduler):  # type: ignore[misc]  # the package has no types
    """The database's schedule. The settings say which tasks there are, the operators when each one runs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._alive = Sign(settings.ALIVE_FILE)
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Queues what is due; seconds until the next time."""
        self._alive.give()
        return super().tick(*args, **kwargs)

    def update_from_dict(self, mapping: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds the entries that are missing; one that is there keeps its times and whether it is switched on."""
        known = dict(PeriodicTask.objects.filter(name__in=mapping).values_list("name", "task"))
        super().update_from_dict({name: entry for name, entry in mapping.items() if name not in known})
        for name, task in known.items():
            if mapping[name]["task"] != task:
                PeriodicTask.objects.get(name=name).delete()
                super().update_from_dict({name: mapping[name]})
                log.info("schedule_entry_replaced", entry=name, task=mapping[name]["task"])
