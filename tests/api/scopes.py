"""What a key needs for each route, as DESIGN says it: an independent copy of what stands in the routes' signatures."""

from collections.abc import Mapping

from storage.domain import Scope

ADMIN, TRAIN, PREDICT = Scope.ADMIN, Scope.TRAIN, Scope.PREDICT

# Looking is for whoever predicts, but for the images themselves: they are what teams upload, not what their customers
# should see.
SCOPES: Mapping[str, Scope] = {
    "GET /v1/strategies": PREDICT,
    "GET /v1/models": PREDICT,
    "POST /v1/models": TRAIN,
    "GET /v1/models/{name}": PREDICT,
    "PATCH /v1/models/{name}": ADMIN,
    "DELETE /v1/models/{name}": ADMIN,
    "POST /v1/models/{name}/batches": TRAIN,
    "GET /v1/batches/{batch_id}": TRAIN,
    "GET /v1/batches/{batch_id}/rejects": TRAIN,
    "DELETE /v1/batches/{batch_id}": ADMIN,
    "POST /v1/batches/{batch_id}/images": TRAIN,
    "GET /v1/images/{image_id}": TRAIN,
    "DELETE /v1/images/{image_id}": ADMIN,
    "PATCH /v1/images/{image_id}": TRAIN,
    "GET /v1/models/{name}/relabels": TRAIN,
    "DELETE /v1/models/{name}/classes/{label}/images": ADMIN,
    "GET /v1/models/{name}/images/{image_id}/prediction": PREDICT,
    "POST /v1/models/{name}/increments": TRAIN,
    "POST /v1/models/{name}/edits": TRAIN,
    "GET /v1/models/{name}/increments": PREDICT,
    "GET /v1/increments/{increment_id}": PREDICT,
    "GET /v1/increments/{increment_id}/events": PREDICT,
    "POST /v1/increments/{increment_id}/cancel": TRAIN,
    "POST /v1/increments/{increment_id}/retry": TRAIN,
    "GET /v1/models/{name}/versions": PREDICT,
    "GET /v1/models/{name}/versions/{number}": PREDICT,
    "DELETE /v1/models/{name}/versions/{number}": ADMIN,
    "GET /v1/models/{name}/versions/{number}/files/{file}": TRAIN,
    "GET /v1/models/{name}/versions/{number}/metrics": PREDICT,
    "GET /v1/models/{name}/metrics": PREDICT,
    "GET /v1/models/{name}/promotions": TRAIN,
    "GET /v1/models/{name}/versions/{number}/evaluations": TRAIN,
    "GET /v1/models/{name}/versions/{number}/comparison": TRAIN,
    "GET /v1/models/{name}/batches": TRAIN,
    "GET /v1/models/{name}/images": TRAIN,
    "GET /v1/models/{name}/classes": TRAIN,
    "PATCH /v1/models/{name}/classes/{label}": TRAIN,
    "GET /v1/batches/{batch_id}/images": TRAIN,
    "GET /v1/images/{image_id}/thumbnail": TRAIN,
    "GET /v1/models/{name}/metrics.png": PREDICT,
    "GET /v1/models/{name}/metrics.svg": PREDICT,
    "GET /v1/models/{name}/versions/{number}/card": PREDICT,
    "GET /v1/models/{name}/versions/{number}/export": TRAIN,
    "GET /v1/models/{name}/current": PREDICT,
    "PUT /v1/models/{name}/current": TRAIN,
    "POST /v1/models/{name}/predictions": PREDICT,
    "GET /v1/models/{name}/predictions": PREDICT,
    "GET /v1/predictions/{prediction_id}": PREDICT,
    "GET /v1/predictions/{prediction_id}/images/{position}": TRAIN,
    "GET /v1/audit": ADMIN,
    "GET /metrics": PREDICT,
    "GET /v2": PREDICT,
    "POST /v2/repository/index": PREDICT,
    "GET /v2/models/{name}": PREDICT,
    "GET /v2/models/{name}/ready": PREDICT,
    "POST /v2/models/{name}/infer": PREDICT,
    "GET /v2/models/{name}/versions/{number}": PREDICT,
    "GET /v2/models/{name}/versions/{number}/ready": PREDICT,
    "POST /v2/models/{name}/versions/{number}/infer": PREDICT,
}

# Probes, the description and the pages about problems tell nothing of what the service holds.
PUBLIC = {
    "GET /livez",
    "GET /readyz",
    "GET /v2/health/live",
    "GET /v2/health/ready",
    "GET /problems",
    "GET /problems/{kind}",
}
