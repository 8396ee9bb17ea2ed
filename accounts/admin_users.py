"""People and their roles in the operator admin. Users are never deleted, for the ledger names them."""

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts.models import User
from config.display import labelled, moment, quiet


class OperatorUserCreationForm(UserCreationForm):  # type: ignore[misc]
    """A user by e-mail address; addresses differ in more than their case."""

    class Meta:
        model = User
        fields = ("email",)

    def clean_email(self) -> str:
        return str(self.cleaned_data["email"]).strip().lower()


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):  # type: ignore[misc,type-arg]
    """People: operators and members of accounts. Never deleted, for the ledger names them."""

    form = UserChangeForm
    add_form = OperatorUserCreationForm
    change_password_form = AdminPasswordChangeForm
    ordering = ("email",)
    list_display = ("email", "name", "operator", "active", "last_login_at")
    list_filter = ("is_staff", "is_active")
    search_fields = ("email", "name")
    show_full_result_count = False
    readonly_fields = ("last_login_at", "joined_at")
    fieldsets = (
        (None, {"fields": ("email", "name", "password", "is_active")}),
        ("Operator", {"fields": ("is_staff", "is_superuser", "groups", "user_permissions")}),
        ("Dates", {"fields": ("last_login_at", "joined_at")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "usable_password", "password1", "password2")}),)

    @labelled("Operator", {"operator": "info"})
    def operator(self, user: User) -> str | None:
        return "operator" if user.is_staff else None

    @labelled("State", {"active": "success", "disabled": "warning"})
    def active(self, user: User) -> str:
        return "active" if user.is_active else "disabled"

    @admin.display(description="Last login", ordering="last_login")
    def last_login_at(self, user: User) -> SafeString:
        return moment(user.last_login) if user.last_login else quiet("never")

    @admin.display(description="Joined")
    def joined_at(self, user: User) -> SafeString:
        return moment(user.date_joined)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        fields = tuple(super().get_readonly_fields(request, obj))
        if not request.user.is_superuser:
            # Whoever may edit users may not make anyone, themselves included, more powerful.
            fields += ("is_staff", "is_superuser", "groups", "user_permissions")
        return fields

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        if obj is not None and obj.is_superuser and not request.user.is_superuser:
            return False
        return bool(super().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, ModelAdmin):  # type: ignore[misc]
    """Roles: named sets of permissions."""
