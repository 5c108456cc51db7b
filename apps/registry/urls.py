"""Addresses of the registry, relative to ``/api/v1/``.

``models/upload`` stands before ``models/<model>``: the lean door answers its POST before Django is
asked; what stands here documents it, and says so where that door is not in front.
"""

from apps.core.api.urls import both
from apps.registry.api import models, releases, upload_schema, versions

MODEL = "models/<str:model>"
VERSION = f"{MODEL}/versions/<int:number>"
ENDPOINT = f"{MODEL}/endpoints/<str:environment>"
RELEASE = f"{ENDPOINT}/releases/<int:number>"

app_name = "registry"
urlpatterns = [
    *both("models", models.ModelsView.as_view(), "models"),
    *both("models/upload", upload_schema.UploadView.as_view(), "upload"),
    *both(MODEL, models.ModelView.as_view(), "model"),
    *both(f"{MODEL}/versions", versions.VersionsView.as_view(), "versions"),
    *both(VERSION, versions.VersionView.as_view(), "version"),
    *both(f"{VERSION}/artifact", versions.ArtifactView.as_view(), "artifact"),
    *both(f"{VERSION}/deprecate", versions.DeprecateView.as_view(), "deprecate"),
    *both(f"{VERSION}/archive", versions.ArchiveView.as_view(), "archive"),
    *both(f"{VERSION}/restore", versions.RestoreView.as_view(), "restore"),
    *both(f"{MODEL}/aliases/<str:alias>", versions.AliasView.as_view(), "alias"),
    *both(ENDPOINT, releases.EndpointView.as_view(), "endpoint"),
    *both(f"{ENDPOINT}/releases", releases.ReleasesView.as_view(), "releases"),
    *both(f"{RELEASE}/approve", releases.ApproveView.as_view(), "approve"),
    *both(f"{RELEASE}/reject", releases.RejectView.as_view(), "reject"),
    *both(f"{ENDPOINT}/rollback", releases.RollbackView.as_view(), "rollback"),
]
