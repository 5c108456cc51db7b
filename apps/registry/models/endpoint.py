"""Endpoints and their releases: what serves, and all that ever served."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.registry.models.version import RegisteredModel
from apps.registry.snapshot import Arm, arm_from_json
from apps.registry.states import Environment, ReleaseState


class Endpoint(models.Model):
    """A model in an environment: what a client calls."""

    model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="endpoints")
    environment = models.CharField(
        max_length=12, choices=[(one.value, one.value) for one in Environment]
    )
    # A serving process is ready only with a warm version of this endpoint.
    required = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["model", "environment"], name="endpoint_of_a_model_in_an_environment"
            ),
            models.CheckConstraint(
                condition=Q(environment__in=[one.value for one in Environment]),
                name="endpoint_environment_is_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model.name} in {self.environment}"


class Release(models.Model):
    """One immutable row of an endpoint's history; only its state and its decision move."""

    endpoint = models.ForeignKey(Endpoint, on_delete=models.PROTECT, related_name="releases")
    number = models.PositiveIntegerField()
    state = models.CharField(
        max_length=17, choices=[(one.value, one.value) for one in ReleaseState]
    )
    arms = models.JSONField()
    salt = models.CharField(max_length=64, blank=True)
    coverage = models.FloatField(default=1.0)
    namespace = models.CharField(max_length=100, blank=True)
    experiment = models.CharField(max_length=64, blank=True)
    parameters = models.JSONField(default=dict, blank=True)
    rolled_back_to = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="rollbacks"
    )

    # Who asked, and the person behind a key: the one who may not approve it.
    reason = models.TextField(blank=True)
    actor_kind = models.CharField(max_length=16)
    actor_id = models.CharField(max_length=64, blank=True)
    actor_name = models.CharField(max_length=200)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="releases_asked_for",
    )
    approver_name = models.CharField(max_length=200, blank=True)
    approver = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="releases_decided",
    )
    decision_reason = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)
    decided = models.DateTimeField(null=True, blank=True)
    rolled_out_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint", "number"], name="release_number_of_an_endpoint"
            ),
            # Two people cannot both win, whatever the code does.
            models.UniqueConstraint(
                fields=["endpoint"], condition=Q(state="live"), name="one_live_release_per_endpoint"
            ),
            models.CheckConstraint(
                condition=Q(state__in=[one.value for one in ReleaseState]),
                name="release_state_is_known",
            ),
            models.CheckConstraint(
                condition=Q(coverage__gte=0, coverage__lte=1), name="release_coverage_is_a_share"
            ),
        ]
        indexes = [
            # What awaits somebody's approval.
            models.Index(
                fields=["created"],
                name="release_awaiting_approval",
                condition=Q(state="awaiting_approval"),
            )
        ]

    def __str__(self) -> str:
        return f"release {self.number} of {self.endpoint}"

    def typed_arms(self) -> tuple[Arm, ...]:
        """The arms as the snapshot knows them."""
        return tuple(arm_from_json(arm) for arm in self.arms)

    @property
    def version_numbers(self) -> frozenset[int]:
        """Numbers of the versions this release carries."""
        return frozenset(int(arm["version"]) for arm in self.arms)
