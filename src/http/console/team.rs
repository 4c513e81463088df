//! Who signs in to the console. Everybody sees the team, owners change it; nobody changes their own account here, so that
//! an owner cannot lock the last owner out.

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::{Query, address, notice};
use crate::access::{self, AccessError};
use crate::domain::ids::AdminId;
use crate::domain::problem::ProblemCode;
use crate::http::AppState;
use crate::http::error::ApiError;
use crate::http::pages::console::{AdminRow, Choice, Confirm, CreatedPassword, Place, Shell, Team};
use crate::http::pages::{self, Moment};
use crate::http::session::{Form, Page, Refusal, role};
use crate::storage::{Admin, Role, StoreError};

pub(super) async fn list_admins(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
    page: Page<role::Viewer>,
) -> Result<Response, Refusal> {
    let mut shell = page.shell(&state, "Team", Place::Team);
    shell.notice = notice(&Query::of(query.as_deref()));
    show(&state, shell, &page.admin, StatusCode::OK, None, None).await
}

/// The page, with a password that was just made, or with what is wrong with the form (and the address typed).
async fn show(
    state: &AppState,
    shell: Shell,
    myself: &Admin,
    status: StatusCode,
    created: Option<CreatedPassword>,
    refused: Option<(String, &str)>,
) -> Result<Response, Refusal> {
    let now = state.clock.now();
    let admins = state.store.list_admins().await?;
    let row = |admin: &Admin| AdminRow {
        id: admin.id.to_string(),
        email: admin.email.clone(),
        role: admin.role.as_str(),
        created: Moment::new(admin.created_at, now),
        is_self: admin.id == myself.id,
    };
    let (email, problem) = refused.map_or((String::new(), None), |(email, problem)| {
        (email, Some(problem.to_owned()))
    });
    let context = Team {
        shell,
        created,
        admins: admins.iter().map(row).collect(),
        roles: vec![
            Choice::new("viewer", "Viewer: reads", true),
            Choice::new(
                "operator",
                "Operator: connects, refreshes and revokes sellers",
                false,
            ),
            Choice::new("owner", "Owner: API keys and the team too", false),
        ],
        problem,
        email,
    };
    Ok(pages::render(status, &context))
}

pub(super) async fn create_admin(
    State(state): State<AppState>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    let shell = form.shell(&state, "Team", Place::Team);
    let email = form.fields.text("email").to_lowercase();
    let refuse = |problem| Some((email.clone(), problem));
    let wrong = StatusCode::UNPROCESSABLE_ENTITY;
    let Ok(role) = form.fields.text("role").parse::<Role>() else {
        return show(&state, shell, &form.admin, wrong, None, refuse("Choose a role.")).await;
    };
    if !is_address(&email) {
        return show(
            &state,
            shell,
            &form.admin,
            wrong,
            None,
            refuse("That is not an e-mail address."),
        )
        .await;
    }
    let password = access::generate_password(&state.random);
    let now = state.clock.now();
    match access::create_admin(
        &state.store,
        &email,
        role,
        &password,
        form.actor,
        now,
        &state.random,
    )
    .await
    {
        Ok(admin) => {
            let created = CreatedPassword {
                email: admin.email,
                password,
            };
            show(
                &state,
                shell,
                &form.admin,
                StatusCode::CREATED,
                Some(created),
                None,
            )
            .await
        }
        Err(AccessError::Store(StoreError::Conflict)) => {
            let refused = refuse("There is an account with this address already.");
            show(&state, shell, &form.admin, StatusCode::CONFLICT, None, refused).await
        }
        Err(error) => Err(error.into()),
    }
}

/// Enough of an address to know the person by; nothing is sent there.
fn is_address(email: &str) -> bool {
    let parts = email.split_once('@');
    let sane = email.len() <= 254 && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    sane && parts.is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'))
}

/// Another admin than the one who asks.
async fn find_other(state: &AppState, id: &str, myself: &Admin) -> Result<Admin, ApiError> {
    let id: AdminId = id.parse()?;
    if id == myself.id {
        return Err(ApiError::new(
            ProblemCode::Conflict,
            "your own account is changed by another owner or by command",
        ));
    }
    let admins = state.store.list_admins().await?;
    admins
        .into_iter()
        .find(|admin| admin.id == id)
        .ok_or_else(ApiError::not_found)
}

pub(super) async fn confirm_remove(
    State(state): State<AppState>,
    Path(id): Path<String>,
    page: Page<role::Owner>,
) -> Result<Response, Refusal> {
    let admin = find_other(&state, &id, &page.admin).await?;
    let context = Confirm {
        shell: page.shell(&state, format!("Remove {}?", admin.email), Place::Team),
        what: format!("The account of {} ({}) will be removed.", admin.email, admin.role),
        consequence: "Their sessions end at once. The audit log keeps what they did.",
        action: format!("/console/team/{}/remove", admin.id),
        button: "Remove account",
        back: "/console/team".to_owned(),
    };
    Ok(pages::render(StatusCode::OK, &context))
}

pub(super) async fn remove_admin(
    State(state): State<AppState>,
    Path(id): Path<String>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    let admin = find_other(&state, &id, &form.admin).await?;
    state
        .store
        .remove_admin(&admin.email, form.actor, state.clock.now())
        .await?;
    Ok(Redirect::to(&address("/console/team", &[("done", "removed")])).into_response())
}

pub(super) async fn confirm_reset(
    State(state): State<AppState>,
    Path(id): Path<String>,
    page: Page<role::Owner>,
) -> Result<Response, Refusal> {
    let admin = find_other(&state, &id, &page.admin).await?;
    let context = Confirm {
        shell: page.shell(&state, format!("New password for {}?", admin.email), Place::Team),
        what: format!(
            "{} will get a new password, which is shown to you once.",
            admin.email
        ),
        consequence: "Their password stops working and their sessions end at once.",
        action: format!("/console/team/{}/reset-password", admin.id),
        button: "Make a new password",
        back: "/console/team".to_owned(),
    };
    Ok(pages::render(StatusCode::OK, &context))
}

pub(super) async fn reset_password(
    State(state): State<AppState>,
    Path(id): Path<String>,
    form: Form<role::Owner>,
) -> Result<Response, Refusal> {
    let admin = find_other(&state, &id, &form.admin).await?;
    let password = access::generate_password(&state.random);
    let shell = form.shell(&state, "Team", Place::Team);
    let now = state.clock.now();
    access::reset_password(
        &state.store,
        &admin.email,
        &password,
        form.actor,
        now,
        &state.random,
    )
    .await?;
    let created = CreatedPassword {
        email: admin.email,
        password,
    };
    show(&state, shell, &form.admin, StatusCode::OK, Some(created), None).await
}
