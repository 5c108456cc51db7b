"""Pages and parts of pages, relative to ``/admin/inference-pages/``.

Each view guards itself (``pages.door.page``).
"""

from django.urls import path

from apps.inference.pages import predictions, traffic, tries
from apps.inference.pages.rollout import rollout

app_name = "inference-pages"
urlpatterns = [
    path(
        "rollout/<str:model>/<str:environment>/<int:number>/",
        rollout,
        name="rollout",
    ),
    path("try/<str:model>/<int:number>/", tries.version_try, name="version-try"),
    path("traffic/", traffic.traffic_page, name="traffic"),
    path("traffic/models/", traffic.traffic_models, name="traffic-models"),
    path("traffic/download/", traffic.download, name="traffic-download"),
    path("traffic/model/<str:model>/", traffic.model_traffic, name="model-traffic"),
    path(
        "traffic/version/<str:model>/<int:number>/", traffic.version_traffic, name="version-traffic"
    ),
    path(
        "traffic/endpoint/<str:model>/<str:environment>/",
        traffic.endpoint_traffic,
        name="endpoint-traffic",
    ),
    path("rate/<str:model>/<str:environment>/", traffic.endpoint_rate, name="endpoint-rate"),
    path("usage/key/<str:key>/", traffic.key_usage, name="key-usage"),
    path("usage/team/<int:team>/", traffic.team_usage, name="team-usage"),
    path("cells/", traffic.cells, name="cells"),
    path("predictions/<str:model>/", predictions.model_predictions, name="model-predictions"),
    path("match-rate/", predictions.match_rate, name="match-rate"),
]
