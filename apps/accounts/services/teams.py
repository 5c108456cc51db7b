"""Make teams, and say who is in them with which role."""

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from apps.accounts.models import Membership, Team, User
from apps.accounts.services import people
from apps.accounts.snapshot import Role
from apps.core import events
from apps.core.errors import Conflict, FieldProblem, Invalid
from apps.core.events import Actor


@transaction.atomic
def create_team(*, slug: str, name: str, actor: Actor) -> Team:
    """Make a team without members."""
    team = Team(slug=slug, name=name)
    open_team(team, actor=actor)
    return team


@transaction.atomic
def open_team(team: Team, *, actor: Actor) -> None:
    """Write a team that a form has filled."""
    try:
        team.clean_fields()
        with transaction.atomic():
            team.save()
    except ValidationError as error:
        problems = [
            FieldProblem(f"/{field}", text)
            for field, texts in error.message_dict.items()
            for text in texts
        ]
        raise Invalid("The team cannot be made like this.").at(problems) from error
    except IntegrityError as error:
        raise Conflict(f"There is a team `{team.slug}` already. Choose another slug.") from error
    events.record("team.created", actor=actor, target=team, team_id=team.pk)


@transaction.atomic
def rename_team(team: Team, *, name: str, actor: Actor) -> None:
    """Change how a team is called; its slug stays."""
    before, team.name = team.name, name
    team.save(update_fields=["name"])
    events.record(
        "team.renamed",
        actor=actor,
        target=team,
        team_id=team.pk,
        changes=events.changes({"name": before}, {"name": name}),
    )


@transaction.atomic
def add_member(team: Team, user: User, *, role: Role, actor: Actor) -> Membership:
    """Take a user into a team."""
    people.lock(user)
    try:
        with transaction.atomic():
            member = Membership.objects.create(team=team, user=user, role=role.value)
    except IntegrityError as error:
        raise Conflict(
            f"`{user.username}` is in this team already. Change the role instead."
        ) from error
    _record("member.added", member, actor=actor, after=role.value, role=role.value)
    people.publish(user)
    return member


@transaction.atomic
def change_role(member: Membership, *, role: Role, actor: Actor) -> None:
    """Give a member another role; tokens from before the change end."""
    user, before = member.user, member.role
    people.lock(user)
    mine = Membership.objects.filter(pk=member.pk, role=before)
    if not mine.update(role=role.value):
        raise Conflict(f"The role of `{user.username}` was changed meanwhile. Look again.")
    member.role = role.value
    if before == role.value:
        return
    people.end_tokens(user)
    _record(
        "member.role_changed",
        member,
        actor=actor,
        was=before,
        after=role.value,
        role=role.value,
        before=before,
    )
    people.publish(user)


@transaction.atomic
def remove_member(member: Membership, *, actor: Actor) -> None:
    """Take a user out of a team; the user's keys of this team are refused from now on."""
    user = member.user
    people.lock(user)
    if not Membership.objects.filter(pk=member.pk).delete()[0]:
        raise Conflict(f"`{user.username}` was taken out of the team meanwhile.")
    people.end_tokens(user)
    _record("member.removed", member, actor=actor, was=member.role, role=member.role)
    people.publish(user)


def _record(
    verb: str,
    member: Membership,
    *,
    actor: Actor,
    was: str | None = None,
    after: str | None = None,
    **facts: str,
) -> None:
    user = member.user
    events.record(
        verb,
        actor=actor,
        target=member.team,
        team_id=member.team_id,
        user_id=user.pk,
        username=user.username,
        changes=events.changes({"role": was}, {"role": after}),
        **facts,
    )
