"""Who belongs to a customer, on its page."""

from django.core.exceptions import ValidationError
from unfold.admin import TabularInline
from unfold.forms import PaginationInlineFormSet

from accounts.models import Membership


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
