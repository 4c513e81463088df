//! What the platform relies on under `/v1`.

use std::collections::BTreeMap;

use serde_json::{Value, json as value};

use super::openapi;
use crate::domain::scope::Scope;
use crate::http::testing::TestSite;
use crate::mercadopago::peer::{Act, json};
use crate::mercadopago::routes::ROUTES;

const GRANT: &str = r#"{"access_token":"APP_USR-canary-new","user_id":7,"refresh_token":"TG-canary-new","expires_in":15552000}"#;

/// Path, method and scope of the operations of the API itself.
fn operations() -> BTreeMap<(String, String), String> {
    let mut operations = described();
    operations.retain(|(path, _), _| path.starts_with("/v1/"));
    operations
}

/// The same of the proxied ones.
fn proxied() -> BTreeMap<(String, String), String> {
    let mut proxied = described();
    proxied.retain(|(path, _), _| path.starts_with("/proxy/"));
    proxied
}

/// Every operation of the OpenAPI document with its scope.
fn described() -> BTreeMap<(String, String), String> {
    let document = serde_json::to_value(openapi()).unwrap();
    let mut found = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let scope = operation["security"][0]["api_key"][0].as_str();
            let scope = scope.unwrap_or_else(|| panic!("{method} {path} names no scope"));
            found.insert((path.clone(), method.to_uppercase()), scope.to_owned());
        }
    }
    found
}

fn address(path: &str) -> String {
    path.replace("{seller_id}", "seller-1")
        .replace("{id}", "key_00000000000000000000000000000000")
        .replace("{child_id}", "7")
}

#[test]
fn the_document_lists_the_proxied_routes_with_their_scopes() {
    let table: Vec<_> = ROUTES
        .iter()
        .map(|route| {
            let template = route.template.replacen("{id}", "{first}", 1);
            let template = template.replace("{id}", "{child_id}").replace("{first}", "{id}");
            let path = format!("/proxy/{{seller_id}}{template}");
            ((path, route.method.to_string()), route.scope.to_string())
        })
        .collect();
    let count = table.len();
    assert_eq!(proxied(), BTreeMap::from_iter(table));
    assert_eq!(proxied().len(), count);
    assert_eq!(proxied().len() + operations().len(), described().len());
}

#[tokio::test]
async fn every_proxied_operation_refuses_a_missing_key_and_one_with_every_scope_but_its_own() {
    let site = TestSite::new().await;
    for ((path, method), scope) in proxied() {
        let refused = async |key: &str| {
            let answer = site.call(&method, &address(&path), key, "{}").await;
            let code = answer.json()["code"].as_str().unwrap().to_owned();
            assert_eq!(answer.header("connector-error"), code, "{method} {path}");
            (answer.status.as_u16(), code)
        };
        let problem = |status: u16, code: &str| (status, code.to_owned());
        assert_eq!(
            refused("mck_unknown").await,
            problem(401, "invalid_api_key"),
            "{method} {path}"
        );
        let others = Scope::ALL.iter().map(|one| one.as_str());
        let others: Vec<_> = others.filter(|one| *one != scope && *one != "proxy:*").collect();
        let key = site.key(&others.join(" ")).await;
        assert_eq!(
            refused(&key).await,
            problem(403, "insufficient_scope"),
            "{method} {path}"
        );
        for enough in [scope.as_str(), "proxy:*"] {
            let key = site.key(enough).await;
            assert_eq!(
                refused(&key).await,
                problem(404, "connection_not_found"),
                "{method} {path}"
            );
        }
    }
}

#[test]
fn the_operations_and_their_scopes_are_those_of_the_contract() {
    let lines: Vec<_> = operations()
        .iter()
        .map(|((path, method), scope)| format!("{method} {path} {scope}"))
        .collect();
    assert_eq!(
        lines,
        [
            "GET /v1/api-keys admin",
            "POST /v1/api-keys admin",
            "DELETE /v1/api-keys/{id} admin",
            "GET /v1/audit-log admin",
            "POST /v1/connect-links connect:write",
            "GET /v1/connections connections:read",
            "POST /v1/connections connections:import",
            "DELETE /v1/connections/{seller_id} connections:revoke",
            "GET /v1/connections/{seller_id} connections:read",
            "PATCH /v1/connections/{seller_id} connections:write",
            "POST /v1/connections/{seller_id}/refresh connections:write",
            "GET /v1/deliveries events:read",
            "POST /v1/deliveries/{id}/retry events:write",
            "GET /v1/event-endpoints events:write",
            "POST /v1/event-endpoints events:write",
            "DELETE /v1/event-endpoints/{id} events:write",
            "GET /v1/event-endpoints/{id} events:write",
            "PATCH /v1/event-endpoints/{id} events:write",
            "POST /v1/event-endpoints/{id}/replay events:write",
            "POST /v1/event-endpoints/{id}/rotate-secret events:write",
            "POST /v1/event-endpoints/{id}/test events:write",
            "GET /v1/events events:read",
            "GET /v1/events/{id} events:read",
        ]
    );
}

#[tokio::test]
async fn every_operation_refuses_whoever_has_no_valid_key_and_always_in_the_same_words() {
    let site = TestSite::new().await;
    let revoked = site.key("admin connections:read").await;
    let found = site
        .state
        .store
        .find_api_key(&crate::domain::secret::ApiKeySecret::new(revoked.clone()))
        .await;
    let (id, now) = (found.unwrap().unwrap().id, site.now());
    let actor = crate::domain::event::Actor::operator();
    assert!(
        site.state
            .store
            .revoke_api_key(&id, None, actor, now)
            .await
            .unwrap()
    );
    for (path, method) in operations().keys() {
        let mut bodies = Vec::new();
        for key in [&revoked, "mck_unknown", "", "mck_unknown mck_other"] {
            let answer = site.call(method, &address(path), key, "{}").await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (401, "invalid_api_key"),
                "{method} {path}"
            );
            assert!(answer.header("www-authenticate").starts_with("Bearer realm="));
            let mut body = answer.json();
            body["instance"] = Value::Null;
            bodies.push(body);
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "{method} {path}");
        let bare = http::Request::builder()
            .method(method.as_str())
            .uri(address(path))
            .body(axum::body::Body::empty());
        assert_eq!(site.send(bare.unwrap()).await.status, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn every_operation_refuses_a_key_with_every_scope_but_its_own() {
    let site = TestSite::new().await;
    for ((path, method), scope) in operations() {
        let others: Vec<_> = Scope::ALL
            .iter()
            .map(|one| one.as_str())
            .filter(|one| *one != scope)
            .collect();
        let key = site.key(&others.join(" ")).await;
        let answer = site.call(&method, &address(&path), &key, "{}").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (403, "insufficient_scope"),
            "{method} {path}"
        );
        assert!(
            answer
                .header("www-authenticate")
                .ends_with(&format!("scope=\"{scope}\"")),
            "{method} {path}"
        );
        let key = site.key(&scope).await;
        let answer = site.call(&method, &address(&path), &key, "{}").await;
        assert!(
            !matches!(answer.status.as_u16(), 401 | 403),
            "{method} {path}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_connect_link_is_made_and_all_that_is_wrong_with_a_request_is_told_at_once() {
    let site = TestSite::new().await;
    let key = site.key("connect:write").await;
    let good = r#"{"seller_id":"seller-1","return_url":"https://shop.example/done?x=1","locale":"pt-BR","expires_in":3600,
        "metadata":{"a":1},"on_account_change":"replace"}"#;
    let answer = site.call("POST", "/v1/connect-links", &key, good).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let body = answer.json();
    assert!(
        body["url"]
            .as_str()
            .unwrap()
            .starts_with("https://connect.example/connect/")
    );
    assert!(body["id"].as_str().unwrap().starts_with("lnk_"));
    assert_eq!(body["seller_id"], "seller-1");
    assert_eq!(
        body["expires_at"],
        value!(site.now() + chrono::TimeDelta::hours(1))
    );

    let bad = r#"{"seller_id":"a/b","locale":"de","expires_in":2592001,"metadata":[],"on_account_change":"x","sellr":1}"#;
    let answer = site.call("POST", "/v1/connect-links", &key, bad).await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.fields(),
        [
            "seller_id",
            "locale",
            "on_account_change",
            "expires_in",
            "metadata",
            "sellr"
        ]
    );
    for url in [
        "//evil.example",
        "https://shop.example.evil/done",
        "https://shop.example/donexx",
        "javascript:alert(1)",
    ] {
        let body = value!({ "seller_id": "s", "return_url": url }).to_string();
        assert_eq!(
            site.call("POST", "/v1/connect-links", &key, &body).await.fields(),
            ["return_url"],
            "{url}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_an_invalid_request_and_what_is_too_large_is_not_read() {
    let site = TestSite::new().await;
    let key = site.key("connect:write admin").await;
    for body in ["", "{", "[]", "null"] {
        let answer = site.call("POST", "/v1/connect-links", &key, body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "invalid_request"),
            "{body:?}"
        );
    }
    let large = format!("{{\"seller_id\":\"{}\"}}", "x".repeat(300 * 1024));
    let answer = site.call("POST", "/v1/connect-links", &key, &large).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (413, "body_too_large")
    );
    for path in [
        "/v1/nothing",
        "/v1",
        "/v1/api-keys/x",
        "/v1/api-keys/key_00000000000000000000000000000000",
    ] {
        let answer = site.call("DELETE", path, &key, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (404, "not_found"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn connections_are_listed_page_by_page_and_filtered() {
    let site = TestSite::new().await;
    for (number, seller) in ["ana", "beto", "carla", "dora"].iter().enumerate() {
        site.connect(seller, 100 + i64::try_from(number).unwrap()).await;
    }
    site.connect_of("other", "elsewhere", 1).await;
    let key = site.key("connections:read").await;
    let list = async |query: &str| {
        site.call("GET", &format!("/v1/connections{query}"), &key, "")
            .await
            .json()
    };
    let sellers = |page: &Value| -> Vec<String> {
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["seller_id"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = list("?limit=3").await;
    assert_eq!(sellers(&first), ["ana", "beto", "carla"]);
    let second = list(&format!(
        "?limit=3&cursor={}",
        first["next_cursor"].as_str().unwrap()
    ))
    .await;
    assert_eq!(
        (sellers(&second), &second["next_cursor"]),
        (vec!["dora".to_owned()], &Value::Null)
    );
    assert_eq!(sellers(&list("?q=et").await), ["beto"]);
    assert_eq!(sellers(&list("?q=102").await), ["carla"]);
    assert!(
        sellers(&list("?q=%25").await).is_empty(),
        "a percent sign is a percent sign"
    );
    assert!(sellers(&list("?status=revoked").await).is_empty());
    assert_eq!(
        sellers(&list("?expiring_before=2030-01-01T00:00:00Z").await).len(),
        4
    );
    assert!(sellers(&list("?expiring_before=2025-01-01T00:00:00Z").await).is_empty());
    for (query, field) in [
        ("limit=201", "limit"),
        ("status=x", "status"),
        ("cursor=x!", "cursor"),
        ("x=1", "x"),
    ] {
        let answer = site
            .call("GET", &format!("/v1/connections?{query}"), &key, "")
            .await;
        assert_eq!(answer.fields(), [field]);
    }
}

#[tokio::test]
async fn a_connection_shows_every_member_and_never_a_token() {
    let site = TestSite::new().await;
    site.connect("seller-1", 7).await;
    let key = site.key("connections:read").await;
    let answer = site.call("GET", "/v1/connections/seller-1", &key, "").await;
    assert!(!answer.body.contains("canary"));
    let mut body = answer.json();
    assert!(body["refresh_due_at"].is_string());
    body["refresh_due_at"] = Value::Null;
    assert_eq!(
        body,
        value!({
            "seller_id": "seller-1",
            "user_id": 7,
            "status": "active",
            "status_reason": null,
            "usable": true,
            "public_key": "APP_USR-public",
            "application_public_key": "APP_USR-integrator",
            "live_mode": true,
            "scopes": ["offline_access", "read"],
            "access_token_expires_at": "2025-04-02T00:00:00Z",
            "refresh_due_at": null,
            "last_refreshed_at": null,
            "refresh_failures": 0,
            "connected_at": "2024-10-04T00:00:00Z",
            "updated_at": "2024-10-04T00:00:00Z",
            "metadata": { "shop": "<b>norte</b>" },
        })
    );
}

#[tokio::test]
async fn a_seller_of_another_application_and_one_who_is_not_there_are_the_same() {
    let site = TestSite::new().await;
    site.connect_of("other", "theirs", 7).await;
    let key = site
        .key("connections:read connections:write connections:revoke")
        .await;
    for (method, suffix) in [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/refresh")] {
        let mut answers = Vec::new();
        for seller in ["theirs", "nobody", "a%2Fb"] {
            let body = r#"{"metadata":{}}"#;
            let answer = site
                .call(method, &format!("/v1/connections/{seller}{suffix}"), &key, body)
                .await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (404, "connection_not_found")
            );
            answers.push(answer.json()["detail"].clone());
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{method}");
    }
}

#[tokio::test]
async fn metadata_is_changed_by_merge_patch() {
    let site = TestSite::new().await;
    site.connect("seller-1", 7).await;
    let key = site.key("connections:write").await;
    let patch = r#"{"metadata":{"shop":null,"tier":"gold","nested":{"a":1}}}"#;
    let answer = site.call("PATCH", "/v1/connections/seller-1", &key, patch).await;
    assert_eq!(
        answer.json()["metadata"],
        value!({ "tier": "gold", "nested": { "a": 1 } })
    );
    let patch = r#"{"metadata":{"nested":{"b":2}}}"#;
    let answer = site.call("PATCH", "/v1/connections/seller-1", &key, patch).await;
    assert_eq!(
        answer.json()["metadata"],
        value!({ "tier": "gold", "nested": { "a": 1, "b": 2 } })
    );
    let large = value!({ "metadata": { "x": "x".repeat(16_380) } }).to_string();
    assert_eq!(
        site.call("PATCH", "/v1/connections/seller-1", &key, &large)
            .await
            .fields(),
        ["metadata"]
    );
    assert_eq!(
        site.call("PATCH", "/v1/connections/seller-1", &key, "{}")
            .await
            .fields(),
        ["metadata"]
    );
}

#[tokio::test]
async fn a_refresh_by_hand_brings_a_new_token_set_and_is_audited() {
    let site = TestSite::playing([json(200, GRANT)]).await;
    site.connect("seller-1", 7).await;
    site.clock.advance(chrono::TimeDelta::days(1));
    let key = site.key("connections:write admin").await;
    let answer = site
        .call("POST", "/v1/connections/seller-1/refresh", &key, "")
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["last_refreshed_at"], value!(site.now()));
    assert!(!answer.body.contains("canary"));
    let audit = site
        .call(
            "GET",
            "/v1/audit-log?action=connection.refresh_requested",
            &key,
            "",
        )
        .await
        .json();
    assert_eq!(audit["data"][0]["actor_kind"], "api_key");
    assert_eq!(audit["data"][0]["address"], "203.0.113.7");
    assert_eq!(audit["data"][0]["request_id"], answer.header("x-request-id"));
}

#[tokio::test]
async fn a_refresh_that_brings_nothing_for_now_says_when_to_come_again() {
    let site = TestSite::playing([Act::Answer(
        b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n".to_vec(),
    )])
    .await;
    site.connect("seller-1", 7).await;
    let key = site.key("connections:write").await;
    let answer = site
        .call("POST", "/v1/connections/seller-1/refresh", &key, "")
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (503, "token_unavailable")
    );
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(
        (&answer.json()["fault"], &answer.json()["retryable"]),
        (&value!("provider"), &value!(true))
    );
}

#[tokio::test]
async fn revoking_destroys_the_tokens_and_can_be_repeated() {
    let site = TestSite::new().await;
    site.connect("seller-1", 7).await;
    let key = site
        .key("connections:revoke connections:read connections:write admin")
        .await;
    for _ in 0..2 {
        let answer = site.call("DELETE", "/v1/connections/seller-1", &key, "").await;
        assert_eq!(answer.status, 200);
        let body = answer.json();
        assert_eq!(
            (&body["status"], &body["status_reason"]),
            (&value!("revoked"), &value!("revoked_by_api"))
        );
        assert_eq!(
            (&body["usable"], &body["access_token_expires_at"]),
            (&value!(false), &Value::Null)
        );
    }
    let application = "default".parse().unwrap();
    let opened = site
        .state
        .store
        .open_connection(&application, &"seller-1".parse().unwrap())
        .await
        .unwrap();
    assert!(opened.unwrap().access_token.is_none());
    assert_eq!(
        site.call("GET", "/v1/connections/seller-1", &key, "")
            .await
            .json()["status"],
        "revoked"
    );
    let answer = site
        .call("POST", "/v1/connections/seller-1/refresh", &key, "")
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (409, "connection_revoked")
    );
    let audit = site
        .call(
            "GET",
            "/v1/audit-log?action=connection.revoked&target=seller-1",
            &key,
            "",
        )
        .await
        .json();
    assert_eq!(
        audit["data"].as_array().unwrap().len(),
        1,
        "the second changed nothing"
    );
}

#[tokio::test]
async fn a_token_set_from_elsewhere_is_tried_before_it_is_taken() {
    let me = |id: i64| json(200, &format!("{{\"id\":{id}}}"));
    let site = TestSite::playing([me(8), json(401, "{}"), json(500, "{}"), me(7), me(7), me(7)]).await;
    let key = site
        .key("connections:import connections:read connections:revoke")
        .await;
    let body = value!({
        "seller_id": "seller-1", "user_id": 7, "access_token": "APP_USR-canary", "refresh_token": "TG-canary",
        "expires_in": 15_552_000, "scope": "offline_access read", "live_mode": true, "metadata": { "a": 1 },
    });
    let import = async |body: &Value| {
        site.call("POST", "/v1/connections", &key, &body.to_string())
            .await
    };
    assert_eq!(import(&body).await.fields(), ["user_id"]);
    assert_eq!(import(&body).await.fields(), ["access_token"]);
    let undecided = import(&body).await;
    assert_eq!(
        (undecided.status.as_u16(), undecided.code().as_str()),
        (502, "provider_unreachable")
    );
    assert_eq!(
        site.call("GET", "/v1/connections/seller-1", &key, "")
            .await
            .status,
        404,
        "nothing was stored"
    );

    let taken = import(&body).await;
    assert_eq!(taken.status, 201, "{taken:?}");
    assert!(!taken.body.contains("canary"));
    assert_eq!(
        taken.json()["access_token_expires_at"],
        value!(site.now() + chrono::TimeDelta::days(180))
    );
    assert_eq!(taken.json()["scopes"], value!(["offline_access", "read"]));
    let again = import(&body).await;
    assert_eq!((again.status.as_u16(), again.code().as_str()), (409, "conflict"));
    let other = value!({ "seller_id": "seller-2", "user_id": 7, "access_token": "x", "expires_in": 60 });
    let in_use = import(&other).await;
    assert_eq!(
        (in_use.status.as_u16(), in_use.code().as_str()),
        (409, "conflict")
    );
    assert!(
        in_use.json()["detail"]
            .as_str()
            .unwrap()
            .contains("another seller")
    );

    assert_eq!(
        site.call("DELETE", "/v1/connections/seller-1", &key, "")
            .await
            .status,
        200
    );
    let mut unverified = body.clone();
    unverified["verify"] = value!(false);
    assert_eq!(
        import(&unverified).await.status,
        201,
        "a revoked seller may be imported again"
    );
    assert_eq!(site.peer.requests().len(), 6);

    let wrong = value!({ "user_id": "7", "access_token": "a b", "expires_in": 60, "expires_at": "2030-01-01T00:00:00Z", "verify": 1 });
    let mut fields = import(&wrong).await.fields();
    fields.sort();
    assert_eq!(fields, ["access_token", "expires_at", "seller_id", "verify"]);
}

#[tokio::test]
async fn a_key_is_shown_once_works_at_once_and_stops_at_once() {
    let site = TestSite::new().await;
    let admin = site.key("admin connections:read").await;
    let made = site
        .call(
            "POST",
            "/v1/api-keys",
            &admin,
            r#"{"name":"checkout","scopes":["connections:read"]}"#,
        )
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let (id, secret) = (
        made.json()["id"].as_str().unwrap().to_owned(),
        made.json()["secret"].as_str().unwrap().to_owned(),
    );
    assert!(
        secret.starts_with("mck_") && secret.len() >= 4 + 43,
        "256 random bits"
    );
    assert_eq!(site.call("GET", "/v1/connections", &secret, "").await.status, 200);
    let listed = site.call("GET", "/v1/api-keys", &admin, "").await;
    assert!(listed.body.contains(&id) && !listed.body.contains(&secret));
    for _ in 0..2 {
        let revoked = site
            .call("DELETE", &format!("/v1/api-keys/{id}"), &admin, "")
            .await;
        assert_eq!(revoked.status, 200);
        assert!(revoked.json()["revoked_at"].is_string());
    }
    assert_eq!(
        site.call("GET", "/v1/connections", &secret, "").await.code(),
        "invalid_api_key"
    );
}

#[tokio::test]
async fn a_key_ends_when_it_was_said_to_end() {
    let site = TestSite::new().await;
    let admin = site.key("admin").await;
    let body = r#"{"name":"short","scopes":["admin"],"expires_in":3600}"#;
    let secret = site.call("POST", "/v1/api-keys", &admin, body).await.json()["secret"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(site.call("GET", "/v1/api-keys", &secret, "").await.status, 200);
    site.clock.advance(chrono::TimeDelta::hours(1));
    assert_eq!(site.call("GET", "/v1/api-keys", &secret, "").await.status, 401);
}

#[tokio::test]
async fn a_key_makes_no_stronger_key_and_sees_no_other_applications_keys() {
    let site = TestSite::new().await;
    let admin = site.key("admin connections:read").await;
    let stronger = r#"{"name":"x","scopes":["connections:read","payments:write"]}"#;
    let answer = site.call("POST", "/v1/api-keys", &admin, stronger).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code().as_str()),
        (403, "insufficient_scope")
    );
    for (body, fields) in [
        (r#"{"name":"x","scopes":[]}"#, vec!["scopes"]),
        (r#"{"name":"x","scopes":["nonsense"]}"#, vec!["scopes"]),
        (r#"{"name":"","scopes":"admin"}"#, vec!["name", "scopes"]),
        (r"{}", vec!["name", "scopes"]),
    ] {
        assert_eq!(
            site.call("POST", "/v1/api-keys", &admin, body).await.fields(),
            fields,
            "{body}"
        );
    }
    let theirs = site.key_of("other", "admin").await;
    let listed = site.call("GET", "/v1/api-keys", &theirs, "").await.json();
    let id = listed["data"][0]["id"].as_str().unwrap();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        site.call("DELETE", &format!("/v1/api-keys/{id}"), &admin, "")
            .await
            .status,
        404
    );
    assert_eq!(site.call("GET", "/v1/api-keys", &theirs, "").await.status, 200);
}

#[tokio::test]
async fn the_audit_log_is_paged_and_shows_one_application_only() {
    let site = TestSite::new().await;
    for number in 0..5 {
        site.clock.advance(chrono::TimeDelta::seconds(1));
        site.connect(&format!("seller-{number}"), 100 + number).await;
    }
    site.connect_of("other", "elsewhere", 1).await;
    let key = site.key("admin").await;
    let first = site
        .call(
            "GET",
            "/v1/audit-log?action=connection.imported&limit=3",
            &key,
            "",
        )
        .await
        .json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let path = format!("/v1/audit-log?action=connection.imported&limit=3&cursor={cursor}");
    let second = site.call("GET", &path, &key, "").await.json();
    let targets: Vec<_> = [&first, &second]
        .iter()
        .flat_map(|page| page["data"].as_array().unwrap())
        .map(|row| row["target"].as_str().unwrap())
        .collect();
    assert_eq!(
        targets,
        ["seller-4", "seller-3", "seller-2", "seller-1", "seller-0"]
    );
    assert_eq!(second["next_cursor"], Value::Null);
}

#[tokio::test]
async fn the_document_is_openapi_3_1_and_the_page_of_it_loads_nothing_from_elsewhere() {
    let site = TestSite::new().await;
    let document = site.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document, serde_json::to_value(openapi()).unwrap());
    let ids: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap().to_owned())
        .collect();
    let page = site.get("/docs").await;
    assert_eq!(page.status, 200);
    for id in ids {
        assert!(
            page.body.contains(&format!("id=\"{id}\"")),
            "{id} is not on the page"
        );
    }
    assert!(!page.body.contains("https://") && !page.body.contains("<script"));
}
