"""The page on which an operator does one thing: a form, one service call, an answer."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django import forms
from django.contrib.admin import ModelAdmin
from django.db.models import Model
from django.http import HttpRequest
from django.template.response import TemplateResponse
from unfold.decorators import action
from unfold.enums import ActionVariant
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminEmailInputWidget,
    UnfoldAdminFileFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from config.display import Tile
from config.errors import DomainError

View = TypeVar("View", bound=Callable[..., Any])


def operation(
    description: str,
    *,
    icon: str,
    permission: str,
    url_path: str,
    variant: ActionVariant = ActionVariant.DEFAULT,
) -> Callable[[View], View]:
    """Makes a method of an admin the page behind a button; `has_<permission>_permission` decides who sees and may use it."""
    decorate: Callable[[View], View] = action(
        description=description, icon=icon, variant=variant, permissions=[permission], url_path=url_path
    )
    return decorate


class OperationForm(forms.Form):
    """A form in the admin's own style."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            if field.widget.is_hidden:
                continue
            if isinstance(field, forms.EmailField):
                field.widget = UnfoldAdminEmailInputWidget(attrs=field.widget.attrs)
            elif isinstance(field, forms.IntegerField):
                field.widget = UnfoldAdminIntegerFieldWidget(
                    attrs={**field.widget.attrs, **field.widget_attrs(field.widget), "inputmode": "numeric"}
                )
            elif isinstance(field, forms.MultipleChoiceField):
                field.widget = UnfoldAdminCheckboxSelectMultipleWidget(choices=field.choices)
            elif isinstance(field, forms.FileField):
                # The theme writes the chosen name into the text beside it, which its own widget has.
                field.widget = UnfoldAdminFileFieldWidget(attrs=field.widget.attrs)
            elif isinstance(field, forms.BooleanField):
                field.widget = UnfoldBooleanWidget(attrs=field.widget.attrs)
            elif isinstance(field.widget, forms.Textarea):
                field.widget = UnfoldAdminTextareaWidget(attrs=field.widget.attrs)
            elif isinstance(field, forms.ChoiceField):
                field.widget = UnfoldAdminSelectWidget(attrs=field.widget.attrs, choices=field.choices)
            elif isinstance(field, forms.DateTimeField):
                field.widget = UnfoldAdminTextInputWidget(attrs={**field.widget.attrs, "type": "datetime-local"})
            else:
                field.widget = UnfoldAdminTextInputWidget(attrs=field.widget.attrs)
            field.widget.is_required = field.required

    def refuse(self, error: DomainError) -> None:
        """Shows a service's refusal: next to the fields that its details name, else above the form."""
        named = [field for field in error.details if field in self.fields]
        for field in named:
            self.add_error(field, error.message if len(named) == 1 else f"{error.details[field]}")
        if not named:
            self.add_error(None, error.message)


def operation_page(
    model_admin: "ModelAdmin[Any]",
    request: HttpRequest,
    *,
    title: str,
    form: OperationForm,
    submit: str,
    obj: Model | None = None,
    subtitle: str = "",
    tiles: Sequence[Tile] = (),
    notes: Sequence[str] = (),
    danger: bool = False,
    cancel_url: str = "",
) -> TemplateResponse:
    """The form as a page, with what was typed and what was refused when it comes back."""
    return TemplateResponse(
        request,
        "admin/operation.html",
        {
            **page_context(model_admin, request, obj),
            "title": title,
            "subtitle": subtitle,
            "form": form,
            "submit_text": submit,
            "tiles": tiles,
            "notes": notes,
            "danger": danger,
            "cancel_url": cancel_url,
        },
    )


def result_page(
    model_admin: "ModelAdmin[Any]",
    request: HttpRequest,
    template: str,
    *,
    title: str,
    obj: Model,
    subtitle: str = "",
    **context: Any,
) -> TemplateResponse:
    """What came of an operation. The admin forbids every cache to keep it, so a secret on it is gone with the page."""
    return TemplateResponse(
        request,
        template,
        {**page_context(model_admin, request, obj), "title": title, "subtitle": subtitle, **context},
    )


def page_context(model_admin: "ModelAdmin[Any]", request: HttpRequest, obj: Model | None) -> dict[str, Any]:
    """What every page of the admin has around it."""
    return {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "original": obj,
        "media": model_admin.media,
    }
