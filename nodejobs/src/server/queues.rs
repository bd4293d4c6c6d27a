//! The routes of groups and queued jobs.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use nodejobs_core::engine::Edits;
use nodejobs_core::explain::Explanation;
use nodejobs_core::group::{GroupChange, GroupStatus};
use nodejobs_core::record::JobRecord;

use super::{BodyBytes, PathOf, ServerState, parse, path, whole};
use crate::error::Error;

pub(super) fn routes() -> Router<ServerState> {
    Router::new()
        .route("/v1/jobs/{reference}/explain", get(explain))
        .route("/v1/jobs/{reference}/edit", post(edit))
        .route("/v1/groups", get(groups))
        .route("/v1/groups/{name}", post(set_group))
        .route("/v1/groups/{name}/remove", post(remove_group))
}

async fn explain(
    State(state): State<ServerState>,
    reference: PathOf<String>,
) -> Result<Json<Explanation>, Error> {
    Ok(Json(state.owner.explain(&path(reference)?).await?))
}

async fn edit(
    State(state): State<ServerState>,
    reference: PathOf<String>,
    body: BodyBytes,
) -> Result<Json<JobRecord>, Error> {
    let (reference, edits): (String, Edits) = (path(reference)?, parse(body)?);
    Ok(Json(state.owner.edit(&reference, &edits).await?))
}

async fn groups(State(state): State<ServerState>) -> Result<Json<Vec<GroupStatus>>, Error> {
    Ok(Json(state.owner.groups().await?))
}

async fn set_group(
    State(state): State<ServerState>,
    name: PathOf<String>,
    body: BodyBytes,
) -> Result<Json<GroupStatus>, Error> {
    let (name, change): (String, GroupChange) = (path(name)?, parse(body)?);
    Ok(Json(state.owner.set_group(&name, change).await?))
}

async fn remove_group(
    State(state): State<ServerState>,
    name: PathOf<String>,
    body: BodyBytes,
) -> Result<Json<GroupStatus>, Error> {
    whole(body)?;
    Ok(Json(state.owner.remove_group(&path(name)?).await?))
}
