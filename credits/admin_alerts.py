"""Alerts in the operator admin: what customers were told, whether it arrived, and at which thresholds."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import ModelAdmin
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.enums import ActionVariant

from accounts.admin_forms import ConfirmForm
from accounts.admin_pages import OperationForm, account_url, operation, operation_page
from accounts.models import Account
from config.display import code, figure, labelled, link, moment, quiet
from config.errors import DomainError
from config.read_only import NextPagePaginator, ReadOnlyAdmin, ReadOnlyInline
from credits import alert_delivery, alert_messages, alert_settings
from credits.admin import OfAccountAdmin
from credits.admin_filters import CustomerFilter, DayFilter
from credits.alert_models import Alert, AlertDelivery, AlertSettings
from credits.alert_settings import EXPIRING_DAYS_MAX, PERCENT_MAX, Preferences
from credits.amounts import CREDITS_MAX

STATE_LABELS = {"pending": "info", "failed": "warning", "delivered": "success", "gave up": "danger"}


def _state(delivery: AlertDelivery) -> str:
    return delivery.state.replace("_", " ")


def _threshold(alert: Alert) -> str | SafeString:
    match alert.kind:
        case Alert.Kind.LOW_CREDITS:
            return f"{alert.threshold:,} credits"
        case Alert.Kind.LOW_PERCENT:
            return f"{alert.threshold} % of {alert.granted:,} credits"
        case Alert.Kind.EXPIRING:
            return f"{alert.expiring:,} credits within {alert.threshold} days"
    return quiet("none")


def thresholds(preferences: Preferences) -> str:
    """In words, when and where a customer is told."""
    when = [
        f"at {preferences.low_credits:,} credits" if preferences.low_credits else "",
        f"at {preferences.low_percent} % of the open grants" if preferences.low_percent else "",
        f"{preferences.expiring_days} days before credits expire" if preferences.expiring_days else "",
    ]
    where = [*preferences.emails, preferences.webhook_url]
    return f"{', '.join(filter(None, when)) or 'never'}; to {', '.join(filter(None, where)) or 'nobody'}"


class AlertColumns:
    """What an alert says of itself wherever it is listed."""

    @admin.display(description="Time")
    def told(self, alert: Alert) -> SafeString:
        return link(reverse("admin:credits_alert_change", args=[alert.pk]), moment(alert.created_at))

    @admin.display(description="Balance then")
    def balance_figure(self, alert: Alert) -> SafeString:
        return figure(alert.balance)

    @admin.display(description="Threshold")
    def threshold_text(self, alert: Alert) -> str | SafeString:
        return _threshold(alert)

    @admin.display(description="Deliveries")
    def outcome(self, alert: Alert) -> str | SafeString:
        """How many deliveries stand in which state."""
        states = [_state(delivery) for delivery in alert.deliveries.all()]
        counted = {state: states.count(state) for state in STATE_LABELS if state in states}
        return ", ".join(f"{count} {state}" for state, count in counted.items()) or quiet("nobody to tell")


class AlertInline(AlertColumns, ReadOnlyInline):
    """What the customer was told, newest first, on its page."""

    model = Alert
    verbose_name_plural = "Alerts"
    fields = ("told", "kind", "threshold_text", "balance_figure", "outcome")
    readonly_fields = fields
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("deliveries")


class DeliveryInline(ReadOnlyInline):
    """Where the alert went."""

    model = AlertDelivery
    verbose_name_plural = "Deliveries"
    fields = ("to", "channel", "state_label", "attempts", "last_error")
    readonly_fields = fields
    ordering = ("id",)

    @admin.display(description="To")
    def to(self, delivery: AlertDelivery) -> SafeString:
        return link(reverse("admin:credits_alertdelivery_change", args=[delivery.pk]), delivery.target)

    @labelled("State", STATE_LABELS)
    def state_label(self, delivery: AlertDelivery) -> str:
        return _state(delivery)


@admin.register(Alert)
class AlertAdmin(AlertColumns, OfAccountAdmin):
    """What customers were told; the log of alerts."""

    list_display = ("created", "customer", "kind", "threshold_text", "balance_figure", "outcome")
    list_filter = ("kind", DayFilter, CustomerFilter)
    fields = ("event", "created", "customer", "kind", "threshold_text", "balance_figure")
    readonly_fields = fields
    inlines = (DeliveryInline,)
    ordering = ("-id",)

    @admin.display(description="Event")
    def event(self, alert: Alert) -> SafeString:
        return code(alert_messages.event_id(alert))

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("deliveries")


class DeliveryCustomerFilter(CustomerFilter):
    """Deliveries of one customer, by its number."""

    account_path = "alert__account_id"


@admin.register(AlertDelivery)
class AlertDeliveryAdmin(ReadOnlyAdmin):
    """Each alert's way to each address, and once more for those that failed."""

    list_display = ("created", "customer", "alert_kind", "target", "state_label", "attempts", "last_error")
    list_filter = ("state", "channel", "alert__kind", DeliveryCustomerFilter)
    list_select_related = ("alert__account",)
    fields = (
        "alert_link",
        "customer",
        "channel",
        "target",
        "state_label",
        "attempts",
        "next_attempt",
        "response_status",
        "last_error",
        "created",
        "finished",
    )
    readonly_fields = fields
    ordering = ("-id",)
    sortable_by = ()
    paginator = NextPagePaginator
    actions_detail = ("try_again",)

    @admin.display(description="Time")
    def created(self, delivery: AlertDelivery) -> SafeString:
        return moment(delivery.created_at)

    @admin.display(description="Customer")
    def customer(self, delivery: AlertDelivery) -> SafeString:
        return link(account_url(delivery.alert.account_id), str(delivery.alert.account))

    @admin.display(description="Alert")
    def alert_kind(self, delivery: AlertDelivery) -> str:
        return delivery.alert.get_kind_display()

    @admin.display(description="Alert")
    def alert_link(self, delivery: AlertDelivery) -> SafeString:
        return link(reverse("admin:credits_alert_change", args=[delivery.alert_id]), str(delivery.alert))

    @labelled("State", STATE_LABELS)
    def state_label(self, delivery: AlertDelivery) -> str:
        return _state(delivery)

    @admin.display(description="Next attempt")
    def next_attempt(self, delivery: AlertDelivery) -> SafeString:
        return quiet("none") if delivery.finished_at else moment(delivery.next_attempt_at)

    @admin.display(description="Ended")
    def finished(self, delivery: AlertDelivery) -> SafeString:
        return moment(delivery.finished_at) if delivery.finished_at else quiet("not yet")

    def has_retry_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("credits.change_alertdelivery")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        failed = AlertDelivery.objects.filter(
            pk=object_id, state__in=[AlertDelivery.State.FAILED, AlertDelivery.State.GAVE_UP]
        )
        return super().get_actions_detail(request, object_id) if failed.exists() else []

    @operation("Try again", icon="replay", permission="retry", url_path="try-again", variant=ActionVariant.PRIMARY)
    def try_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Sends a failed delivery once more: `alert_delivery.retry`."""
        delivery = self.get_object(request, object_id)
        if delivery is None:
            raise Http404
        page = reverse("admin:credits_alertdelivery_change", args=[delivery.pk])
        if request.method == "POST":
            try:
                alert_delivery.retry(delivery=delivery, now=timezone.now())
            except DomainError as error:
                messages.error(request, error.message)
            else:
                self.log_change(request, delivery, "Tried again.")
                messages.success(request, "The worker sends it within seconds.")
            return redirect(page)
        return operation_page(
            self,
            request,
            title="Try again",
            subtitle=str(delivery.alert),
            form=ConfirmForm(),
            submit="Send once more",
            obj=delivery,
            notes=[f"It goes to {delivery.target} under the same event id, with all its attempts again."],
            cancel_url=page,
        )


class ThresholdsForm(OperationForm):
    """A customer's alerts; an empty field follows the setting for everybody."""

    low_credits = forms.IntegerField(
        label="Low balance in credits", min_value=0, max_value=CREDITS_MAX, required=False, help_text="0: never."
    )
    low_percent = forms.IntegerField(
        label="Low balance in percent of the open grants", min_value=0, max_value=PERCENT_MAX, required=False
    )
    expiring_days = forms.IntegerField(
        label="Days before credits expire", min_value=0, max_value=EXPIRING_DAYS_MAX, required=False
    )
    emails = forms.CharField(
        label="E-mail addresses", required=False, help_text="Separated by commas. Empty: the customer's own address."
    )

    @classmethod
    def of(cls, account: Account) -> "ThresholdsForm":
        chosen = AlertSettings.objects.filter(account=account).first() or AlertSettings()
        names = ("low_credits", "low_percent", "expiring_days")
        initial = {name: getattr(chosen, name) for name in names} | {"emails": ", ".join(chosen.emails or [])}
        return cls(initial=initial)

    @property
    def addresses(self) -> list[str] | None:
        return [text.strip() for text in self.cleaned_data["emails"].split(",") if text.strip()] or None


def thresholds_page(model_admin: "ModelAdmin[Any]", request: HttpRequest, account: Account) -> HttpResponse:
    """Asks when and by e-mail whom to tell; the webhook is the customer's own affair, for its secret is."""
    form = ThresholdsForm(request.POST) if request.method == "POST" else ThresholdsForm.of(account)
    if request.method == "POST" and form.is_valid():
        before = thresholds(alert_settings.preferences_of(account))
        try:
            saved = alert_settings.save(
                account=account,
                low_credits=form.cleaned_data["low_credits"],
                low_percent=form.cleaned_data["low_percent"],
                expiring_days=form.cleaned_data["expiring_days"],
                emails=form.addresses,
                webhook_url=None,
                now=timezone.now(),
            )
        except DomainError as error:
            form.refuse(error)
        else:
            model_admin.log_change(request, account, f"Alerts: {before} → {thresholds(saved.preferences)}.")
            messages.success(request, f"{account} is told {thresholds(saved.preferences)}.")
            return redirect(account_url(account.pk))
    return operation_page(
        model_admin,
        request,
        title="Set alerts",
        subtitle=str(account),
        form=form,
        submit="Save",
        obj=account,
        notes=["An empty field follows the setting for everybody. The webhook is set by the customer."],
        cancel_url=account_url(account.pk),
    )
