"""People in front of the operator admin, each with a session of their own."""

import re
import uuid
from typing import Any

from django.contrib.auth.models import Permission
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from accounts import services
from accounts.models import Account, User


def make_operator() -> User:
    return services.create_operator(email=f"carol-{uuid.uuid4().hex[:12]}@example.com", password="correct horse")


def make_staff(*permissions: str) -> User:
    """Staff with these permissions alone, such as `accounts.view_account`."""
    user = User.objects.create_user(f"dave-{uuid.uuid4().hex[:12]}@example.com", None, is_staff=True)
    for permission in permissions:
        app, _, codename = permission.partition(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    return user


def make_member() -> User:
    return User.objects.create_user(f"bob-{uuid.uuid4().hex[:12]}@example.com", None)


def client_of(user: User | None) -> Client:
    client = Client()
    if user is not None:
        client.force_login(user)
    return client


def page_of(account: Account, action: str = "change") -> str:
    """The address of an account's page: change, top_up, issue_key, suspend or reactivate."""
    return reverse(f"admin:accounts_account_{action}", args=[account.pk])


def text_of(response: Any) -> str:
    """What a page says, without its markup, on one line."""
    assert isinstance(response, HttpResponse)
    body = re.sub(r"<(script|style|template)\b.*?</\1>", " ", response.content.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def typed(response: Any, name: str) -> str:
    """The value that stands in an input of the page's form."""
    field = response.context["form"][name]
    return str(field.value() or "")
