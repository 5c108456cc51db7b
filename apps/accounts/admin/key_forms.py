"""The forms of a key: what it may do, where from, how much and until when."""

from collections.abc import Callable, Iterator
from datetime import datetime, time, timedelta
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.accounts.admin import words as said
from apps.accounts.admin.door import teams_where
from apps.accounts.callers import Caller
from apps.accounts.keys import KeyKind
from apps.accounts.models import ApiKey, Plan, User
from apps.accounts.policies import PRODUCTION, Action, Scope, Thing, require, require_grantable
from apps.accounts.selectors import teams_of
from apps.accounts.services import keys, plans
from apps.core.errors import PlatformError

LAST_SECOND = time(23, 59, 59)
# What a key's life is chosen from: days, or a date of one's own.
LIVES = (("30", "30 days"), ("90", "90 days"), ("365", "1 year"), ("date", "Until a date"))
KEEP = ("keep", "As it is")
# How long both keys of a rotation are good.
OVERLAPS = (
    ("24", "24 hours"),
    ("1", "1 hour"),
    ("72", "3 days"),
    ("168", "7 days"),
    ("0", "Not at all: the old key ends now"),
)


class RightsForm(forms.ModelForm):  # type: ignore[type-arg]  # generic only for the type checker
    """What a key may do; everything that can be wrong is said here."""

    # Set for each request by ``KeyAdmin``.
    caller: ClassVar[Caller]

    scopes = forms.MultipleChoiceField(
        choices=[(one.value, said.SCOPES[one][0]) for one in said.OFFERED],
        initial=[Scope.PREDICT.value],
    )
    environments = forms.MultipleChoiceField(
        choices=[(one, one) for one in said.SHOWN_ENVIRONMENTS], initial=[PRODUCTION]
    )
    model_names = forms.CharField(label="Models", required=False)
    plan = forms.ChoiceField(required=False)
    networks = forms.CharField(required=False, max_length=4000)
    life = forms.ChoiceField(label="Expires", choices=LIVES, initial="365", required=False)
    expires_on = forms.DateField(label="Date", required=False)

    class Meta:
        model = ApiKey
        fields: tuple[str, ...] = ("name",)

    def offer_plans(self, offered: list[Plan], usual: str) -> None:
        """Let one of some plans be chosen."""
        field = self.fields["plan"]
        field.choices = [(one.pk, one.title) for one in offered]  # type: ignore[attr-defined]  # a choice
        field.initial = usual
        self.offered = offered

    @property
    def scope_choices(self) -> list[tuple[str, str, str, bool]]:
        """Scopes with their sentences, and which are chosen."""
        chosen = self["scopes"].value() or ()
        return [(one, *said.SCOPES[one], one in chosen) for one in said.OFFERED]

    @property
    def scope_groups(self) -> Iterator[tuple[str, list[tuple[str, str, str, bool]]]]:
        """The same, by what they are about."""
        choices = {one[0]: one for one in self.scope_choices}
        for title, scopes in said.SCOPE_GROUPS:
            found = [choices[one.value] for one in scopes if one.value in choices]
            if found:
                yield title, found

    @property
    def plan_choices(self) -> list[tuple[str, str, str, bool]]:
        """Plans with their numbers in words, and which is chosen."""
        chosen = self["plan"].value()
        return [(one.pk, one.title, said.plan_words(one), one.pk == chosen) for one in self.offered]

    def clean_model_names(self) -> list[str]:
        return _words_of(str(self.cleaned_data["model_names"]))

    def clean_networks(self) -> list[str]:
        typed = _words_of(str(self.cleaned_data["networks"]).replace("\n", ","))
        try:
            return keys.checked_networks(typed)
        except PlatformError as error:
            raise ValidationError([one.detail for one in error.problems]) from error

    def end(self, form: dict[str, Any]) -> datetime | None:
        """The moment at which the key ends, or None for no change; a date ends with its day."""
        life = form["life"] or str(self.fields["life"].initial)
        if life == KEEP[0]:
            return None
        if life != "date":
            return timezone.now() + timedelta(days=int(life))
        day = form["expires_on"]
        if day is None:
            self.add_error("expires_on", "Choose the date on which the key shall end.")
            return None
        return timezone.make_aware(datetime.combine(day, LAST_SECOND))

    def check_rules(self, form: dict[str, Any], *, team_id: int, kind: str, owner: User) -> None:
        """Ask what may not be given; ``usual`` stands for the plan that nobody chose."""
        if form["expires_at"] is not None:
            self.check(lambda: keys.expiry(form["expires_at"]), "expires_on")
        self.check(lambda: self._grantable(form, team_id, kind), None)
        if form["plan"] != self.fields["plan"].initial:
            self.check(
                lambda: plans.require_givable(
                    self.caller, team_id=team_id, name=form["plan"], owner=owner
                ),
                "plan",
            )

    def check(self, rule: Callable[[], object], field: str | None) -> None:
        """Let a rule speak at the field it is about; the pointer of a problem says which."""
        try:
            rule()
        except PlatformError as error:
            for one in error.problems:
                name = one.pointer.split("/")[1] if one.pointer else ""
                at = {"expires_at": "expires_on", "models": "model_names"}.get(name, name)
                self.add_error(at if at in self.fields else field, one.detail)
            if not error.problems:
                self.add_error(field, error.message)

    def _grantable(self, form: dict[str, Any], team_id: int, kind: str) -> None:
        require_grantable(
            self.caller,
            team_id=team_id,
            kind=KeyKind(kind),
            scopes=form["scopes"],
            models=form["model_names"],
            environments=form["environments"],
            networks=form["networks"],
        )


class KeyForm(RightsForm):
    """What a new key shall be."""

    kind = forms.ChoiceField(
        choices=[(one.value, name) for one, (name, _) in said.KINDS.items()],
        initial=KeyKind.LIVE.value,
    )

    class Meta:
        model = ApiKey
        fields = ("name", "team")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.owner = User.objects.get(pk=self.caller.user_id)
        mine = teams_where(self.caller, Action.KEY_ISSUE)
        teams = list(teams_of(self.caller).filter(pk__in=mine).order_by("name"))
        field = self.fields["team"]
        field.queryset = teams_of(self.caller).filter(pk__in=mine).order_by("name")  # type: ignore[attr-defined]  # rows
        if len(teams) == 1:
            field.initial = teams[0].pk
        managed = [*teams_where(self.caller, Action.KEY_MANAGE), *mine]
        offered = [
            plan
            for team in managed[:1]
            for plan in plans.givable_plans(self.caller, team_id=team, owner=self.owner)
        ]
        self.offer_plans(offered, plans.usual_plan(self.caller, self.owner))

    @property
    def kind_choices(self) -> list[tuple[str, str, str, bool]]:
        """Kinds with their sentences, and which is chosen."""
        chosen = self["kind"].value()
        return [(one, name, text, one == chosen) for one, (name, text) in said.KINDS.items()]

    def clean(self) -> dict[str, Any]:
        form: dict[str, Any] = super().clean() or {}
        if self.errors:
            return form
        form["plan"] = form["plan"] or self.fields["plan"].initial
        form["expires_at"] = self.end(form)
        team_id = form["team"].pk
        self.check(lambda: require(self.caller, Action.KEY_ISSUE, Thing(team_id)), "team")
        self.check_rules(form, team_id=team_id, kind=form["kind"], owner=self.owner)
        return form

    def wish(self) -> keys.KeyWish:
        """Return what was asked for."""
        form = self.cleaned_data
        return keys.KeyWish(
            name=form["name"],
            scopes=form["scopes"],
            kind=KeyKind(form["kind"]),
            models=form["model_names"],
            environments=form["environments"],
            expires_at=form["expires_at"],
            plan=form["plan"],
            networks=form["networks"],
        )

    def _post_clean(self) -> None:
        """Leave the row alone: the action makes its own, from the wish."""


class KeyEditForm(RightsForm):
    """What shall be different about a key."""

    life = forms.ChoiceField(label="Expires", choices=(KEEP, *LIVES), initial=KEEP[0])

    def __init__(self, *args: Any, instance: ApiKey, **kwargs: Any) -> None:
        kwargs["initial"] = {
            "name": instance.name,
            "scopes": instance.scopes,
            "environments": instance.environments,
            "model_names": ", ".join(instance.model_names),
            "networks": ", ".join(instance.networks),
        }
        super().__init__(*args, **kwargs)
        self.key = instance
        usual = str(instance.plan_id)
        offered = plans.givable_plans(self.caller, team_id=instance.team_id, owner=instance.owner)
        if usual not in [one.pk for one in offered]:
            offered.append(instance.plan)
        self.offer_plans(offered, usual)
        # A key that has a scope of doors that do not exist yet keeps it.
        self.kept_scopes = [one for one in instance.scopes if one not in said.OFFERED]

    def clean(self) -> dict[str, Any]:
        form: dict[str, Any] = super().clean() or {}
        if self.errors:
            return form
        form["plan"] = form["plan"] or self.fields["plan"].initial
        form["scopes"] = [*form["scopes"], *self.kept_scopes]
        form["expires_at"] = self.end(form)
        key = self.key
        self.check_rules(form, team_id=key.team_id, kind=key.kind, owner=key.owner)
        return form

    def change(self) -> keys.KeyChange:
        """Return what was asked for; what is as it was stays out of the history."""
        form = self.cleaned_data
        return keys.KeyChange(
            name=form["name"],
            scopes=form["scopes"],
            models=form["model_names"],
            environments=form["environments"],
            expires_at=form["expires_at"],
            plan=form["plan"],
            networks=form["networks"],
        )

    def _post_clean(self) -> None:
        """Leave the row alone: the action changes it, under its lock."""


class RotateForm(forms.Form):
    overlap = forms.ChoiceField(choices=OVERLAPS, initial="24")


class RevokeForm(BaseDialogForm):  # type: ignore[misc]  # unfold ships no types
    form_before_template = "admin/accounts/apikey/revoke.html"
    reason = forms.CharField(
        max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Kept in the history."
    )

    def get_before_template_context(
        self, request: HttpRequest, object_id: int | str | None = None
    ) -> dict[str, Any]:
        return {"key_id": object_id}


class RevokeManyForm(forms.Form):
    reason = forms.CharField(max_length=500)


def _words_of(typed: str) -> list[str]:
    return [word.strip() for word in typed.split(",") if word.strip()]
