"""Background tasks in the operator admin: when each one runs. Which tasks there are is the code's to say."""

from typing import Any

import django_celery_beat.admin  # noqa: F401 - what it registers is replaced here
from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    SolarSchedule,
)
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from config.display import code, figure, labelled, moment, quiet

EVERY_MIN_S = 5
EVERY_MAX_S = 7 * 24 * 3600

for model in (ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule):
    admin.site.unregister(model)


class TimesForm(forms.ModelForm):  # type: ignore[type-arg]  # subscripted it fails at run time
    """How often a task runs, and whether it does."""

    every_s = forms.IntegerField(
        label="Every, in seconds",
        min_value=EVERY_MIN_S,
        max_value=EVERY_MAX_S,
        widget=UnfoldAdminIntegerFieldWidget(attrs={"inputmode": "numeric"}),
        help_text="A run that finds no worker until the next one is due is dropped.",
    )

    class Meta:
        model = PeriodicTask
        fields = ("enabled",)
        help_texts = {"enabled": "Off: it is not queued until it is switched on again."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        interval = self.instance.interval
        if interval is not None:
            self.fields["every_s"].initial = round(interval.schedule.run_every.total_seconds())


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(ModelAdmin):  # type: ignore[misc]
    """The schedule that `beat` follows; it sees a change within seconds."""

    form = TimesForm
    list_display = ("name", "task_name", "times", "state_label", "last_run", "runs")
    ordering = ("name",)
    list_per_page = 50
    actions = None
    show_full_result_count = False
    fields = ("entry_name", "task_name", "enabled", "every_s", "last_run", "runs")
    readonly_fields = ("entry_name", "task_name", "last_run", "runs")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: PeriodicTask, form: TimesForm, change: bool) -> None:
        every_s = form.cleaned_data["every_s"]
        obj.interval, _ = IntervalSchedule.objects.get_or_create(every=every_s, period=IntervalSchedule.SECONDS)
        obj.expire_seconds = every_s
        # `beat` keeps its own columns, such as the last run, in the same row.
        obj.save(update_fields=["enabled", "interval", "expire_seconds", "date_changed"])

    @admin.display(description="Name")
    def entry_name(self, entry: PeriodicTask) -> str:
        return str(entry.name)

    @admin.display(description="Task")
    def task_name(self, entry: PeriodicTask) -> SafeString:
        return code(entry.task)

    @admin.display(description="Runs")
    def times(self, entry: PeriodicTask) -> str | SafeString:
        return str(entry.interval) if entry.interval is not None else quiet("by its own schedule")

    @labelled("State", {"on": "success", "off": "warning"})
    def state_label(self, entry: PeriodicTask) -> str:
        return "on" if entry.enabled else "off"

    @admin.display(description="Last queued")
    def last_run(self, entry: PeriodicTask) -> SafeString:
        return moment(entry.last_run_at) if entry.last_run_at else quiet("not yet")

    @admin.display(description="Times queued")
    def runs(self, entry: PeriodicTask) -> SafeString:
        return figure(entry.total_run_count)
