//! The routes of schedules.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use nodejobs_core::record::JobRecord;

use super::{BodyBytes, PathOf, QueryOf, ServerState, parse, path, query, whole};
use crate::api::{ScheduleAction, ScheduleQuery, ScheduleRecord, ScheduleRequest};
use crate::error::Error;

pub(super) fn routes() -> axum::Router<ServerState> {
    axum::Router::new()
        .route("/v1/schedules", post(add).get(list))
        .route("/v1/schedules/{name}", get(show))
        .route("/v1/schedules/{name}/run", post(run))
        .route("/v1/schedules/{name}/{action}", post(act))
}

async fn add(
    State(state): State<ServerState>,
    body: BodyBytes,
) -> Result<(StatusCode, Json<ScheduleRecord>), Error> {
    let request: ScheduleRequest = parse(body)?;
    Ok((StatusCode::CREATED, Json(state.owner.add_schedule(&request).await?)))
}

async fn list(State(state): State<ServerState>) -> Result<Json<Vec<ScheduleRecord>>, Error> {
    Ok(Json(state.owner.schedules().await?))
}

async fn show(
    State(state): State<ServerState>,
    name: PathOf<String>,
    parameters: QueryOf<ScheduleQuery>,
) -> Result<Json<ScheduleRecord>, Error> {
    Ok(Json(state.owner.schedule(&path(name)?, &query(parameters)?).await?))
}

// These take the body, and so read it to its end: whoever is answered before it has sent all may find the connection gone.

async fn run(
    State(state): State<ServerState>,
    name: PathOf<String>,
    body: BodyBytes,
) -> Result<(StatusCode, Json<JobRecord>), Error> {
    whole(body)?;
    Ok((StatusCode::CREATED, Json(state.owner.run_schedule(&path(name)?).await?)))
}

async fn act(
    State(state): State<ServerState>,
    name_and_action: PathOf<(String, String)>,
    body: BodyBytes,
) -> Result<Json<ScheduleRecord>, Error> {
    whole(body)?;
    let (name, action) = path(name_and_action)?;
    let action: ScheduleAction = action.parse()?;
    Ok(Json(state.owner.act_on_schedule(&name, action).await?))
}
