"""What an operator types to create a customer, issue, limit, rotate or revoke a key."""

import re
from datetime import datetime

from django import forms
from django.conf import settings

from accounts.admin_pages import OperationForm
from accounts.keys import PREFIX
from accounts.models import ApiKey
from accounts.revocation import REASON_MAX
from accounts.services import LABEL_MAX, MONTHLY_CAP_MAX, NETWORKS_MAX, RPM_MAX
from config.errors import DomainError

NETWORK_TEXT_MAX = 43  # an IPv6 network in full


class CustomerForm(OperationForm):
    """A new customer: its name and the address of its owner."""

    name = forms.CharField(max_length=200)
    email = forms.EmailField(
        label="E-mail",
        max_length=254,
        help_text="The owner's address; statements and alerts go there. A user with this address becomes the owner.",
    )


class KeyLimitsForm(OperationForm):
    """What a key may do: every limit of `issue_key`."""

    label = forms.CharField(
        max_length=LABEL_MAX, required=False, help_text="What this key is for, such as “nightly export”."
    )
    scopes = forms.MultipleChoiceField(
        choices=ApiKey.Scope.choices, required=False, help_text="What the key may call. None checked: everything."
    )
    expires_at = forms.DateTimeField(
        label="Expires (UTC)", required=False, help_text="From this moment on the key is refused. Empty: never."
    )
    networks = forms.CharField(
        widget=forms.Textarea({"rows": 3, "spellcheck": "false"}),
        required=False,
        max_length=(NETWORK_TEXT_MAX + 2) * NETWORKS_MAX,
        help_text="Addresses or networks that may use the key, one a line, such as 192.0.2.7 or 2001:db8::/32. Empty: any.",
    )
    monthly_cap = forms.IntegerField(
        label="Credits per month",
        min_value=0,
        max_value=MONTHLY_CAP_MAX,
        required=False,
        help_text="Most that this key and its successors may spend in a month (UTC). Empty: no cap. 0: nothing.",
    )
    rpm = forms.IntegerField(label="Requests per minute", min_value=0, max_value=RPM_MAX, required=False)

    def __init__(self, *args: object, key: ApiKey | None = None, **kwargs: object) -> None:
        super().__init__(*args, initial=None if key is None else self.typed(key), **kwargs)
        self._kept = None if key is None else key.expires_at
        self.fields[
            "rpm"
        ].help_text = f"Empty: follows the setting RATE_LIMIT_RPM (now {settings.RATE_LIMIT_RPM}). 0: no limit."

    @staticmethod
    def typed(key: ApiKey) -> dict[str, object]:
        """The key's limits as somebody would type them."""
        return {
            "label": key.label,
            "scopes": key.scopes,
            "expires_at": "" if key.expires_at is None else f"{key.expires_at:%Y-%m-%dT%H:%M:%S}",
            "networks": "\n".join(key.networks),
            "monthly_cap": key.monthly_cap,
            "rpm": key.rpm,
        }

    def clean_expires_at(self) -> datetime | None:
        """What stands already is kept to the microsecond, which nobody types."""
        typed: datetime | None = self.cleaned_data["expires_at"]
        kept = self._kept is not None and self._kept.replace(microsecond=0) == typed
        return self._kept if kept else typed

    def refuse(self, error: DomainError) -> None:
        """Each limit's own reason stands beside it."""
        for field, reason in error.details.items():
            self.add_error(field if field in self.fields else None, f"{reason[:1].upper()}{reason[1:]}.")
        if not error.details:
            self.add_error(None, error.message)

    def clean_networks(self) -> list[str]:
        networks = re.split(r"[\s,;]+", self.cleaned_data["networks"].strip())
        return [network for network in networks if network]


class RotateKeyForm(OperationForm):
    """How long the old key lives on."""

    GRACES = {"0": "It ends now", "1": "1 hour", "24": "24 hours", "168": "7 days"}

    grace = forms.ChoiceField(
        label="The old key works for",
        choices=list(GRACES.items()),
        initial="24",
        help_text="Both keys work until then.",
    )


class RevokeKeyForm(OperationForm):
    """Asks for the key's id, for a revoked key never works again."""

    confirmation = forms.CharField(label="Key id", max_length=64, widget=forms.TextInput({"autocomplete": "off"}))
    reason = forms.CharField(
        max_length=REASON_MAX, required=False, help_text="Stands beside your name, such as “found in a repository”."
    )

    def __init__(self, *args: object, public_id: str, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._public_id = public_id
        self.fields["confirmation"].help_text = f"Type {public_id} to revoke this key for good."

    def clean_confirmation(self) -> str:
        typed: str = self.cleaned_data["confirmation"].strip()
        if typed not in {self._public_id, f"{PREFIX}{self._public_id}", f"{PREFIX}{self._public_id}_…"}:
            raise forms.ValidationError(f"This is not the id of the key. Type {self._public_id}.")
        return typed


class ConfirmForm(OperationForm):
    """Nothing to type: the button is the confirmation."""
