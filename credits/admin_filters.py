"""Filters of the operators' lists: by customer, by day, by expiry."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, Max, Min, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import TextFilter
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.models import Account

NUMBER_DIGITS_MAX = 18


class CustomerFilter(TextFilter):  # type: ignore[misc]
    """Rows of one customer, by its number."""

    title = "customer number"
    parameter_name = "customer"
    account_path = "account_id"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        number = (self.value() or "").strip()
        if not number:
            return queryset
        if not (number.isascii() and number.isdigit() and len(number) <= NUMBER_DIGITS_MAX):
            return queryset.none()
        # The account's key first: so the index by account serves the list, not a join.
        account_id = Account.objects.filter(number=int(number)).values_list("pk", flat=True).first()
        return queryset.filter(**{self.account_path: account_id}) if account_id else queryset.none()


class DayForm(forms.Form):
    """One day, with the browser's own calendar."""

    def __init__(self, name: str, label: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[name] = forms.CharField(
            label=label, required=False, widget=UnfoldAdminTextInputWidget(attrs={"type": "date"})
        )


class DayFilter(TextFilter):  # type: ignore[misc]
    """Rows created on one day, UTC."""

    title = "day (UTC)"
    parameter_name = "day"
    form_class = DayForm

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if not self.value():
            return queryset
        try:
            start = datetime.combine(date.fromisoformat(self.value()), time.min, tzinfo=UTC)
            on_that_day = queryset.filter(created_at__gte=start, created_at__lt=start + timedelta(days=1))
        except (ValueError, OverflowError):
            return queryset.none()
        # The list runs backwards by id: bounds of the id keep it from walking every row since that day. Asking for the
        # number of rows beside them makes Postgres read the day by its index on time.
        bounds = on_that_day.aggregate(first=Min("id"), last=Max("id"), rows=Count("id"))
        return (
            on_that_day.filter(id__gte=bounds["first"], id__lte=bounds["last"]) if bounds["rows"] else queryset.none()
        )

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        yield {
            "form": self.form_class(
                name=self.parameter_name, label=f"By {self.title}", data={self.parameter_name: self.value()}
            )
        }


class ExpiringFilter(admin.SimpleListFilter):
    """Grants that still have credits and expire within some days."""

    title = "expiring"
    parameter_name = "expiring"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("7", "within 7 days"), ("30", "within 30 days"), ("90", "within 90 days")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        days = self.value()
        if days not in {"7", "30", "90"}:
            return queryset
        now = timezone.now()
        until = now + timedelta(days=int(days))
        expiring = queryset.filter(remaining__gt=0, expires_at__gt=now, expires_at__lte=until, ending_at=None)
        return expiring.order_by("expires_at")
