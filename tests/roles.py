"""Which role takes what: said once, for all tests that hold the API to it."""

import re
from collections.abc import Iterator
from typing import Any

from service.identity import Role

# The lowest role that may. Whatever is in the API must be here.
TAKES: dict[Role | None, str] = {
    "camera": """
        inspect inspect_short inspect_batch get_inspection get_heatmap get_part infer infer_version
        model_metadata model_version_metadata model_ready model_version_ready server_metadata
    """,
    "operator": """
        list_inspections get_image get_trail list_feedback get_draft keep_draft remove_draft
        give_feedback give_feedback_short get_mask list_review claim_review release_review
        follow_events read_feed count_shift list_cameras report_drift list_recipes get_recipe
        list_revisions list_promotions list_bundles get_report list_candidates compare_shadow
        list_thresholds foresee_thresholds count_scores estimate_training list_trainings
        get_training get_training_report
    """,
    "engineer": """
        revise_recipe promote nominate set_thresholds ask_training cancel_training retry_training
        export_inspections
    """,
    "admin": "list_audit",
    None: "get_session log_in log_out begin_oidc finish_oidc live ready server_live server_ready",
}
ROLE_OF = {name: role for role, names in TAKES.items() for name in names.split()}


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(operation id, method, address) of everything in the API, with some name for every name."""
    for path, methods in description["paths"].items():
        address = path.replace("{version}", "1").replace("{recipe}", "cap")
        for method, operation in methods.items():
            yield operation["operationId"], method.upper(), re.sub(r"{\w+}", "x", address)
