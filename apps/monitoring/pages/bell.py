"""The bell in the admin's header, and the list of all that it ever rang for; own rows only."""

from django.contrib import admin
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.models import User
from apps.core.errors import NotAuthenticated
from apps.monitoring import selectors
from apps.monitoring.services import reading

PAGE_LENGTH = 25
MOST_DIGITS = 18  # what a 64-bit key has for sure; Python refuses to read thousands


def _person(request: HttpRequest) -> int:
    user = request.user
    if not isinstance(user, User):
        raise NotAuthenticated("Sign in first.")
    return user.pk


@never_cache
@require_GET
def bell(request: HttpRequest) -> HttpResponse:
    """Draw the bell; nothing when the page that asks has the same one already."""
    shown = selectors.bell_of(_person(request))
    if request.GET.get("mark") == shown.mark:
        return HttpResponse(status=204)
    return render(request, "monitoring/bell.html", {"bell": shown})


@never_cache
@require_POST
def mark_read(request: HttpRequest) -> HttpResponse:
    """Mark one as read, or all when none is named; answer with the bell or go back to the list."""
    person, one = _person(request), request.POST.get("notification", "")
    if one and not (one.isdecimal() and len(one) <= MOST_DIGITS):
        raise Http404("There is no such notification.")
    reading.mark_read(person, notification_id=int(one) if one else None)
    if "HX-Request" not in request.headers:
        return HttpResponseRedirect(reverse("monitoring:notifications"))
    return render(request, "monitoring/bell.html", {"bell": selectors.bell_of(person)})


@never_cache
@require_GET
def open_one(request: HttpRequest, notification: int) -> HttpResponse:
    """Go to the page that a notification is about; it is read then."""
    found = reading.opened(_person(request), notification)
    if found is None:
        raise Http404("There is no such notification.")
    return HttpResponseRedirect(found.url)


@never_cache
@require_GET
def notifications(request: HttpRequest) -> HttpResponse:
    """List a person's notifications, all or unread, a page at a time."""
    person, is_unread = _person(request), request.GET.get("show") == "unread"
    rows = selectors.unread_of(person) if is_unread else selectors.notifications_of(person)
    page = Paginator(rows, PAGE_LENGTH).get_page(request.GET.get("page"))
    context = {
        **admin.site.each_context(request),
        "title": "Notifications",
        "page": page,
        "is_unread": is_unread,
        "has_unread": selectors.unread_of(person).exists(),
    }
    return render(request, "monitoring/notifications.html", context)
