"""What belongs to a customer, on its page: keys and members."""

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.admin import TabularInline
from unfold.forms import PaginationInlineFormSet

from accounts.models import ApiKey, Membership
from config.display import code, figure, labelled, link, moment, quiet
from config.read_only import ReadOnlyInline


def rate_limit(key: ApiKey) -> SafeString:
    """A key's requests per minute in words."""
    if key.rpm is None:
        return quiet(f"{settings.RATE_LIMIT_RPM:,} (setting)")
    return figure(key.rpm) if key.rpm else quiet("no limit")


class KeyInline(ReadOnlyInline):
    """The customer's keys, newest first."""

    model = ApiKey
    verbose_name_plural = "API keys"
    template_after = "admin/accounts/account/no_keys.html"
    fields = ("key", "label", "state_label", "limit", "created", "last_used")
    readonly_fields = fields

    @admin.display(description="Key")
    def key(self, key: ApiKey) -> SafeString:
        return link(reverse("admin:accounts_apikey_change", args=[key.pk]), code(key.masked))

    @labelled("State", {"active": "success", "expired": "warning", "revoked": "danger"})
    def state_label(self, key: ApiKey) -> str:
        return key.shown_state(now=timezone.now())

    @admin.display(description="Requests per minute")
    def limit(self, key: ApiKey) -> SafeString:
        return rate_limit(key)

    @admin.display(description="Created")
    def created(self, key: ApiKey) -> SafeString:
        return moment(key.created_at)

    @admin.display(description="Last used")
    def last_used(self, key: ApiKey) -> SafeString:
        return quiet("never") if key.last_used_at is None else moment(key.last_used_at)


class MembershipFormSet(PaginationInlineFormSet):  # type: ignore[misc]
    """An account keeps an owner."""

    def clean(self) -> None:
        super().clean()
        if not any(form.has_changed() for form in self.forms):
            return
        kept = [form.cleaned_data for form in self.forms if getattr(form, "cleaned_data", None)]
        if not any(row.get("role") == Membership.Role.OWNER and not row.get("DELETE") for row in kept):
            raise ValidationError("An account needs an owner. Keep one, or name another first.")


class MembershipInline(TabularInline):  # type: ignore[misc]
    """People who reach the account."""

    model = Membership
    formset = MembershipFormSet
    verbose_name = "member"
    verbose_name_plural = "Members"
    fields = ("user", "role")
    autocomplete_fields = ("user",)
    extra = 0
    max_num = 100
    hide_title = True
