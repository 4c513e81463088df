//! What admins rely on, and what somebody who should not be there meets (SECURITY.md D36 to D40).

use axum::body::Body;
use chrono::{DurationRound as _, TimeDelta};
use http::{Request, StatusCode, header};

use crate::domain::clock::Clock as _;
use crate::domain::ids::{ApplicationId, ConnectionId};
use crate::http::testing::{Answer, PASSWORD, TestSite};
use crate::mercadopago::peer::json;
use crate::storage::{Role, UsageDelta, UsageSums};

/// Every page, for a site with `seller-1`.
const PAGES: [&str; 13] = [
    "/console",
    "/console/connections",
    "/console/connections.csv",
    "/console/connections/default/seller-1",
    "/console/connections/default/seller-1/revoke",
    "/console/connect-links/new",
    "/console/notifications",
    "/console/deliveries",
    "/console/event-endpoints",
    "/console/api-keys",
    "/console/team",
    "/console/audit-log",
    "/console/settings",
];

/// Every form with the least role that may send it.
const FORMS: [(&str, Role); 17] = [
    ("/console/connections/default/seller-1/refresh", Role::Operator),
    ("/console/connections/default/seller-1/revoke", Role::Operator),
    ("/console/connect-links", Role::Operator),
    ("/console/api-keys", Role::Owner),
    (
        "/console/api-keys/key_00000000000000000000000000000000/revoke",
        Role::Owner,
    ),
    ("/console/team", Role::Owner),
    (
        "/console/team/adm_00000000000000000000000000000000/remove",
        Role::Owner,
    ),
    (
        "/console/team/adm_00000000000000000000000000000000/reset-password",
        Role::Owner,
    ),
    (
        "/console/deliveries/dlv_00000000000000000000000000000000/retry",
        Role::Operator,
    ),
    ("/console/event-endpoints", Role::Owner),
    (
        "/console/event-endpoints/ep_00000000000000000000000000000000/test",
        Role::Owner,
    ),
    (
        "/console/event-endpoints/ep_00000000000000000000000000000000/replay",
        Role::Owner,
    ),
    (
        "/console/event-endpoints/ep_00000000000000000000000000000000/enable",
        Role::Owner,
    ),
    (
        "/console/event-endpoints/ep_00000000000000000000000000000000/disable",
        Role::Owner,
    ),
    (
        "/console/event-endpoints/ep_00000000000000000000000000000000/rotate-secret",
        Role::Owner,
    ),
    (
        "/console/event-endpoints/ep_00000000000000000000000000000000/delete",
        Role::Owner,
    ),
    ("/console/sign-out", Role::Viewer),
];

async fn post(site: &TestSite, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let request = headers
        .iter()
        .fold(Request::post(path), |request, (name, value)| {
            request.header(*name, *value)
        });
    site.send(request.body(Body::from(body.to_owned())).unwrap())
        .await
}

#[tokio::test]
async fn nobody_sees_or_does_anything_without_signing_in() {
    let site = TestSite::new().await;
    site.connect("seller-1", 7).await;
    for path in PAGES {
        let answer = site.get(path).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert!(
            answer.header("location").starts_with("/console/sign-in"),
            "{path}"
        );
        assert!(answer.body.is_empty(), "{path}");
    }
    for (path, _) in FORMS {
        let answer = post(&site, path, &[], "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (303, "/console/sign-in"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn each_role_does_what_it_may_and_no_more() {
    let site = TestSite::new().await;
    site.connect("seller-1", 7).await;
    for role in [Role::Viewer, Role::Operator, Role::Owner] {
        let browser = site.browser(role).await;
        for (path, least) in FORMS.iter().filter(|(path, _)| *path != "/console/sign-out") {
            let answer = browser.post(path, &[]).await;
            let refused = answer.status == StatusCode::FORBIDDEN
                && answer.header("connector-error") == "insufficient_scope";
            assert_eq!(
                refused,
                !role.includes(*least),
                "{role} {path}: {}",
                answer.status
            );
        }
    }
    let viewer = site
        .sign_in_from("203.0.113.7", "viewer@example.com", PASSWORD, "")
        .await;
    let cookie = viewer.cookie("connector_session").unwrap();
    for path in PAGES {
        let request = Request::get(path)
            .header(header::COOKIE, &cookie)
            .body(Body::empty())
            .unwrap();
        let expected = if path.ends_with("/revoke") || path.ends_with("/new") {
            403
        } else {
            200
        };
        assert_eq!(site.send(request).await.status.as_u16(), expected, "{path}");
    }
}

#[tokio::test]
async fn looking_never_changes_anything() {
    let site = TestSite::new().await;
    site.connect("seller-1", 7).await;
    let browser = site.browser(Role::Owner).await;
    for path in PAGES {
        assert_eq!(browser.get(path).await.status, 200, "{path}");
    }
    for path in [
        "/console/sign-out",
        "/console/connections/default/seller-1/refresh",
        "/console/connect-links",
    ] {
        assert_eq!(browser.get(path).await.status, 404, "{path} is for forms only");
    }
    let page = browser.get("/console/connections/default/seller-1").await;
    assert!(page.body.contains("badge good\">active"));
    assert!(site.peer.requests().is_empty());
}

#[tokio::test]
async fn a_form_needs_the_sessions_token_and_comes_from_our_own_pages() {
    let site = TestSite::new().await;
    site.connect("seller-1", 7).await;
    let browser = site.browser(Role::Owner).await;
    let other = site.browser(Role::Operator).await;
    let foreign_token = other.get("/console").await.hidden("csrf_token");
    for (path, _) in FORMS {
        for token in ["", "x", &foreign_token] {
            let answer = browser.post_with(path, token, &[]).await;
            assert_eq!(
                answer.status,
                StatusCode::FORBIDDEN,
                "{path} with token {token:?}"
            );
        }
        let token = browser.get("/console").await.hidden("csrf_token");
        for origin in ["cross-site", "same-site"] {
            let headers = [("cookie", browser.cookie.as_str()), ("sec-fetch-site", origin)];
            let answer = post(&site, path, &headers, &format!("csrf_token={token}")).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} from {origin}");
        }
    }
    assert!(
        browser
            .get("/console/connections/default/seller-1")
            .await
            .body
            .contains("badge good\">active")
    );
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_address_get_the_same_answer() {
    let site = TestSite::new().await;
    site.admin("ana@example.com", Role::Owner).await;
    let mut bodies = Vec::new();
    for email in ["ana@example.com", "nobody@example.com"] {
        let answer = site.sign_in_from("203.0.113.7", email, "wrong", "").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(answer.cookie("connector_session").is_none());
        let token = answer.hidden("csrf_token");
        bodies.push(answer.body.replace(email, "").replace(&token, ""));
    }
    assert_eq!(bodies[0], bodies[1]);
    assert!(bodies[0].contains("The e-mail or the password is wrong."));
}

#[tokio::test]
async fn signing_in_sets_a_cookie_of_this_host_alone_and_leads_to_the_page_that_was_wanted() {
    let site = TestSite::new().await;
    site.admin("ana@example.com", Role::Owner).await;
    let answer = site
        .sign_in_from("203.0.113.7", "Ana@Example.com", PASSWORD, "")
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (303, "/console/connections")
    );
    let lines: Vec<_> = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|line| line.to_str().unwrap())
        .collect();
    let line = lines
        .iter()
        .find(|line| line.starts_with("__Host-connector_session="))
        .unwrap();
    for attribute in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
        assert!(line.contains(attribute), "{line}");
    }
    assert!(!line.contains("Domain"));
}

#[tokio::test]
async fn an_account_is_limited_whatever_the_address_and_an_address_whatever_the_account() {
    let site = TestSite::new().await;
    site.admin("ana@example.com", Role::Owner).await;
    for attempt in 0..10 {
        let address = format!("203.0.113.{attempt}");
        assert_eq!(
            site.sign_in_from(&address, "ana@example.com", "wrong", "")
                .await
                .status,
            StatusCode::FORBIDDEN
        );
    }
    let limited = site
        .sign_in_from("198.51.100.1", "ana@example.com", PASSWORD, "")
        .await;
    assert_eq!(
        (limited.status.as_u16(), limited.header("retry-after")),
        (429, "900")
    );
    assert_eq!(limited.header("connector-error"), "rate_limited");
    let unknown = site
        .sign_in_from("198.51.100.1", "other@example.com", PASSWORD, "")
        .await;
    assert_eq!(unknown.status, StatusCode::FORBIDDEN, "others are not touched");
    site.clock.advance(TimeDelta::minutes(15) + TimeDelta::seconds(1));
    assert_eq!(
        site.sign_in_from("198.51.100.1", "ana@example.com", PASSWORD, "")
            .await
            .status,
        303
    );

    for attempt in 0..50 {
        let email = format!("guess-{attempt}@example.com");
        assert_eq!(
            site.sign_in_from("198.51.100.9", &email, "wrong", "")
                .await
                .status,
            StatusCode::FORBIDDEN
        );
    }
    assert_eq!(
        site.sign_in_from("198.51.100.9", "ana@example.com", PASSWORD, "")
            .await
            .status,
        429
    );
    assert_eq!(
        site.sign_in_from("198.51.100.8", "ana@example.com", PASSWORD, "")
            .await
            .status,
        303
    );
}

#[tokio::test]
async fn parallel_guesses_count_like_others() {
    let site = std::sync::Arc::new(TestSite::new().await);
    site.admin("ana@example.com", Role::Owner).await;
    let mut guesses = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let site = site.clone();
        guesses.spawn(async move {
            site.sign_in_from("203.0.113.7", "ana@example.com", "wrong", "")
                .await
                .status
        });
    }
    let statuses = guesses.join_all().await;
    assert_eq!(
        statuses
            .iter()
            .filter(|status| **status == StatusCode::FORBIDDEN)
            .count(),
        10
    );
}

#[tokio::test]
async fn a_session_ends_when_idle_and_in_any_case_after_twelve_hours() {
    let site = TestSite::new().await;
    let browser = site.browser(Role::Viewer).await;
    site.clock.advance(TimeDelta::minutes(29));
    assert_eq!(browser.get("/console").await.status, 200);
    site.clock.advance(TimeDelta::minutes(29));
    assert_eq!(
        browser.get("/console").await.status,
        200,
        "a request keeps it alive"
    );
    site.clock.advance(TimeDelta::minutes(31));
    assert_eq!(browser.get("/console").await.status, 303);

    let answer = site
        .sign_in_from("203.0.113.7", "viewer@example.com", PASSWORD, "")
        .await;
    let cookie = answer.cookie("connector_session").unwrap();
    let mut alive = 0;
    for _ in 0..40 {
        site.clock.advance(TimeDelta::minutes(20));
        let request = Request::get("/console")
            .header(header::COOKIE, &cookie)
            .body(Body::empty())
            .unwrap();
        alive += i32::from(site.send(request).await.status == StatusCode::OK);
    }
    assert_eq!(alive, 35, "twelve hours less a moment in steps of twenty minutes");
}

#[tokio::test]
async fn each_sign_in_has_a_new_session_and_ends_the_old_one() {
    let site = TestSite::new().await;
    let first = site.browser(Role::Viewer).await;
    let fixed = format!("__Host-connector_session={}", "a".repeat(43));
    let second = site
        .sign_in_from("203.0.113.7", "viewer@example.com", PASSWORD, &first.cookie)
        .await;
    let second = second.cookie("connector_session").unwrap();
    assert_ne!(second, first.cookie);
    assert_eq!(first.get("/console").await.status, 303, "the old id is dead");
    let third = site
        .sign_in_from("203.0.113.7", "viewer@example.com", PASSWORD, &fixed)
        .await;
    assert_ne!(
        third.cookie("connector_session").unwrap(),
        fixed,
        "an id that somebody planted is not taken over"
    );
}

#[tokio::test]
async fn signing_out_ends_the_session_on_the_server() {
    let site = TestSite::new().await;
    let browser = site.browser(Role::Viewer).await;
    let answer = browser.post("/console/sign-out", &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (303, "/console/sign-in")
    );
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(browser.get("/console").await.status, 303);
}

#[tokio::test]
async fn a_removed_admin_and_one_with_a_new_password_are_out_at_once() {
    let site = TestSite::new().await;
    let owner = site.browser(Role::Owner).await;
    let viewer = site.browser(Role::Viewer).await;
    let team = owner.get("/console/team").await.body;
    let id = team
        .split("/console/team/")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let reset = owner
        .post(&format!("/console/team/{id}/reset-password"), &[])
        .await;
    assert_eq!(reset.status, 200);
    let password = reset
        .body
        .split("id=\"password\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(viewer.get("/console").await.status, 303);
    assert_eq!(
        site.sign_in_from("203.0.113.7", "viewer@example.com", PASSWORD, "")
            .await
            .status,
        403
    );
    let again = site
        .sign_in_from("203.0.113.7", "viewer@example.com", &password, "")
        .await;
    assert_eq!(again.status, 303);
    assert_eq!(owner.get(&format!("/console/team/{id}/remove")).await.status, 200);
    assert_eq!(
        owner
            .post(&format!("/console/team/{id}/remove"), &[])
            .await
            .status,
        303
    );
    let cookie = again.cookie("connector_session").unwrap();
    let request = Request::get("/console")
        .header(header::COOKIE, cookie)
        .body(Body::empty())
        .unwrap();
    assert_eq!(site.send(request).await.status, 303);
    assert_eq!(
        site.sign_in_from("203.0.113.7", "viewer@example.com", &password, "")
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn an_owner_adds_an_admin_and_cannot_remove_himself() {
    let site = TestSite::new().await;
    let owner = site.browser(Role::Owner).await;
    let added = owner
        .post(
            "/console/team",
            &[("email", "Luz@Example.com"), ("role", "operator")],
        )
        .await;
    assert_eq!(added.status, StatusCode::CREATED);
    let password = added
        .body
        .split("id=\"password\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(
        site.sign_in_from("203.0.113.7", "luz@example.com", &password, "")
            .await
            .status,
        303
    );
    for (email, role, status) in [
        ("luz@example.com", "viewer", 409),
        ("nonsense", "viewer", 422),
        ("a@b.example", "king", 422),
    ] {
        let answer = owner
            .post("/console/team", &[("email", email), ("role", role)])
            .await;
        assert_eq!(answer.status.as_u16(), status, "{email} {role}");
    }
    let (admin, _) = site
        .state
        .store
        .find_admin("owner@example.com")
        .await
        .unwrap()
        .unwrap();
    let answer = owner
        .post(&format!("/console/team/{}/remove", admin.id), &[])
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("connector-error")),
        (409, "conflict")
    );
}

#[tokio::test]
async fn an_operator_refreshes_and_revokes_after_a_confirmation() {
    let grant = r#"{"access_token":"APP_USR-canary-2","user_id":7,"refresh_token":"TG-canary-2","expires_in":15552000}"#;
    let site = TestSite::playing([json(200, grant)]).await;
    site.connect("seller-1", 7).await;
    let browser = site.browser(Role::Operator).await;
    let page = "/console/connections/default/seller-1";
    let refreshed = browser.post(&format!("{page}/refresh"), &[]).await;
    assert_eq!(refreshed.header("location"), format!("{page}?done=refreshed"));
    let shown = browser.get(&format!("{page}?done=refreshed")).await.body;
    assert!(shown.contains("The token was refreshed.") && shown.contains("Connection refresh requested"));
    assert!(!shown.contains("canary"));

    let confirm = browser.get(&format!("{page}/revoke")).await.body;
    assert!(confirm.contains("destroyed at once") && confirm.contains("method=\"post\""));
    let revoked = browser.post(&format!("{page}/revoke"), &[]).await;
    assert_eq!(revoked.header("location"), format!("{page}?done=revoked"));
    let shown = browser.get(page).await.body;
    assert!(shown.contains("badge plain\">revoked") && shown.contains("revoked by an admin"));
    let failed = browser.post(&format!("{page}/refresh"), &[]).await;
    assert_eq!(
        failed.header("location"),
        format!("{page}?failed=connection_revoked")
    );
    assert_eq!(
        browser.get("/console/connections/default/nobody").await.status,
        404
    );
    assert_eq!(
        browser.get("/console/connections/other/seller-1").await.status,
        404
    );
}

#[tokio::test]
async fn an_operator_makes_a_connect_link_that_works() {
    let site = TestSite::new().await;
    let browser = site.browser(Role::Operator).await;
    let fields = [
        ("seller_id", "seller-9"),
        ("application", "default"),
        ("locale", "pt"),
        ("expires_in", "3600"),
    ];
    let made = browser.post("/console/connect-links", &fields).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert!(made.body.contains("<svg") && made.body.contains("data-copy=\"url\""));
    let url = made
        .body
        .split("id=\"url\" value=\"https://connect.example")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    assert!(site.get(url).await.body.contains("Conectar sua conta"));

    let hostile = [
        ("seller_id", "<script>"),
        ("application", "default"),
        ("expires_in", "3600"),
    ];
    let refused = browser.post("/console/connect-links", &hostile).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!refused.body.contains("<script>") && refused.body.contains("role=\"alert\""));
    for (name, value) in [
        ("return_url", "https://evil.example/"),
        ("expires_in", "99"),
        ("application", "none"),
    ] {
        let mut fields = fields.to_vec();
        fields.retain(|(key, _)| *key != name);
        fields.push((name, value));
        assert_eq!(
            browser.post("/console/connect-links", &fields).await.status,
            422,
            "{name}"
        );
    }
}

#[tokio::test]
async fn an_owner_makes_a_key_that_is_shown_once_and_revokes_it() {
    let site = TestSite::new().await;
    let owner = site.browser(Role::Owner).await;
    let fields = [
        ("name", "checkout"),
        ("application", "other"),
        ("scope", "connections:read"),
        ("scope", "proxy:*"),
    ];
    let made = owner.post("/console/api-keys", &fields).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let secret = made
        .body
        .split("id=\"secret\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(site.call("GET", "/v1/connections", &secret, "").await.status, 200);
    let listed = owner.get("/console/api-keys").await.body;
    assert!(listed.contains("checkout") && !listed.contains(&secret));
    let id = listed
        .split("/console/api-keys/")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    assert_eq!(
        owner.get(&format!("/console/api-keys/{id}/revoke")).await.status,
        200
    );
    assert_eq!(
        owner
            .post(&format!("/console/api-keys/{id}/revoke"), &[])
            .await
            .status,
        303
    );
    assert_eq!(site.call("GET", "/v1/connections", &secret, "").await.status, 401);
    for fields in [
        &[("name", "x"), ("application", "default")][..],
        &[("scope", "admin"), ("application", "default")],
    ] {
        assert_eq!(owner.post("/console/api-keys", fields).await.status, 422);
    }
}

#[tokio::test]
async fn connections_are_searched_and_paged_and_downloaded_in_full() {
    let site = TestSite::new().await;
    for number in 0..60 {
        site.connect(&format!("-seller-{number:02}"), 100 + number).await;
    }
    site.connect_of("other", "elsewhere", 1).await;
    let browser = site.browser(Role::Viewer).await;
    let first = browser.get("/console/connections").await.body;
    assert!(first.contains("-seller-49") && !first.contains("-seller-50"));
    let next = first
        .split("href=\"/console/connections?after=")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let second = browser
        .get(&format!("/console/connections?after={next}"))
        .await
        .body;
    assert!(second.contains("-seller-50") && second.contains("elsewhere") && !second.contains("-seller-49"));
    let found = browser
        .get("/console/connections?q=seller-07&status=active&application=default")
        .await
        .body;
    assert!(found.contains("-seller-07") && !found.contains("-seller-08"));
    assert!(
        found.contains("/console/connections.csv?q=seller-07&#38;status=active&#38;application=default"),
        "{found}"
    );

    let csv = browser.get("/console/connections.csv").await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    let lines: Vec<_> = csv.body.lines().collect();
    assert_eq!(lines.len(), 1 + 61);
    assert!(
        lines[1].starts_with("'-seller-00,default,100,active,"),
        "no formula: {}",
        lines[1]
    );
    let filtered = browser
        .get("/console/connections.csv?application=other")
        .await
        .body;
    assert_eq!(filtered.lines().count(), 2);
}

#[tokio::test]
async fn what_was_called_is_shown_as_bars_and_in_numbers() {
    let site = TestSite::new().await;
    site.connect("seller-1", 7).await;
    let browser = site.browser(Role::Viewer).await;
    for path in ["/console", "/console/connections/default/seller-1"] {
        assert!(
            browser.get(path).await.body.contains("Nothing was called."),
            "{path}"
        );
    }
    let store = &site.state.store;
    let application = ApplicationId::default_application();
    let seller = "seller-1".parse().unwrap();
    let connection = store
        .find_connection(&application, &seller)
        .await
        .unwrap()
        .unwrap();
    let hour = site.clock.now().duration_trunc(TimeDelta::hours(1)).unwrap();
    let delta = |connection: Option<&ConnectionId>, calls| UsageDelta {
        application: application.clone(),
        connection: connection.cloned(),
        sums: UsageSums {
            calls,
            failures: 2,
            approvals: 7,
            declines_issuer: 1,
            ..UsageSums::default()
        },
    };
    store
        .add_usage(hour, &[delta(Some(&connection.id), 16)])
        .await
        .unwrap();
    let (earlier, own) = (hour - TimeDelta::days(3), delta(None, 9));
    store.add_usage(earlier, &[own]).await.unwrap();

    let page = browser.get("/console").await.body;
    for shown in [
        "Calls of default, the last 24 hours: 16 calls, 2 failed",
        "height=\"100\"",
        ">87.5 %<",
        "<dt>Declined: issuer</dt><dd class=\"number\">1</dd>",
    ] {
        assert!(page.contains(shown), "{shown} is not in {page}");
    }
    let week = browser.get("/console?usage=7d").await.body;
    assert!(week.contains("the last 7 days: 25 calls, 4 failed"), "{week}");
    let of_seller = browser
        .get("/console/connections/default/seller-1?usage=30d")
        .await
        .body;
    assert!(
        of_seller.contains("the last 30 days: 16 calls, 2 failed"),
        "{of_seller}"
    );
}

#[tokio::test]
async fn what_sellers_and_platforms_wrote_is_shown_and_never_run() {
    let site = TestSite::new().await;
    site.connect("seller-1", 7).await;
    let browser = site.browser(Role::Viewer).await;
    let page = browser.get("/console/connections/default/seller-1").await.body;
    assert!(!page.contains("<b>norte</b>") && page.contains("&#60;b&#62;norte"));
    let hostile = "%3Cscript%3Ealert(1)%3C/script%3E%22";
    for path in [
        "/console/connections?q=",
        "/console/audit-log?target=",
        "/console/sign-in?next=",
        "/console?done=",
    ] {
        let page = browser.get(&format!("{path}{hostile}")).await.body;
        assert!(!page.contains("<script>alert"), "{path}");
    }
}

#[tokio::test]
async fn settings_are_shown_without_secrets() {
    let site = TestSite::new().await;
    let page = site
        .browser(Role::Viewer)
        .await
        .get("/console/settings")
        .await
        .body;
    assert!(page.contains("PUBLIC_URL") && page.contains("https://connect.example"));
    assert!(!page.contains("canary-client-secret") && !page.contains("AAAAAAAA"));
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what_from_where() {
    let site = TestSite::new().await;
    site.connect("seller-1", 7).await;
    let browser = site.browser(Role::Operator).await;
    assert_eq!(
        site.sign_in_from("198.51.100.3", "operator@example.com", "wrong", "")
            .await
            .status,
        403
    );
    assert_eq!(
        site.sign_in_from("198.51.100.3", "my-password-by-mistake", "x", "")
            .await
            .status,
        403
    );
    browser
        .post("/console/connections/default/seller-1/revoke", &[])
        .await;
    let revoked = browser
        .get("/console/audit-log?action=connection.revoked")
        .await
        .body;
    assert!(revoked.contains("203.0.113.7") && revoked.contains("adm_") && revoked.contains("seller-1"));
    let failed = browser
        .get("/console/audit-log?action=admin.sign_in_failed")
        .await
        .body;
    assert!(failed.contains("198.51.100.3") && !failed.contains("my-password-by-mistake"));
}
