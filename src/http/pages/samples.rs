//! A sample of every console page, with what strangers could write wherever they can write it.

use chrono::{DateTime, Duration, Utc};

use super::console::*;
use super::events::*;
use super::usage::*;
use super::{Moment, Tone};
use crate::domain::scope::Scope;
use crate::domain::secret::{ApiKeySecret, EndpointSecret, Password};
use crate::http::branding::{Branding, Chrome};

const HOSTILE: &str = "<script>alert('x')</script>\"=cmd";

fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::days(20_000)
}

fn moment(days: i64) -> Moment {
    Moment::new(now() + Duration::days(days), now())
}

fn chrome() -> Chrome {
    Branding::new("Feria Libre", None, None).unwrap().chrome()
}

fn shell(title: &str, place: Place) -> Shell {
    Shell {
        chrome: chrome(),
        title: title.to_owned(),
        place,
        email: "ana@example.com".to_owned(),
        role: "owner",
        may_change: true,
        is_owner: true,
        csrf_token: "token".to_owned(),
        notice: None,
    }
}

fn row(seller: &str, tone: Tone, label: &'static str) -> ConnectionRow {
    ConnectionRow {
        href: "/console/connections/default/seller-42".to_owned(),
        seller_id: seller.to_owned(),
        application: "default".to_owned(),
        user_id: "2345678901".to_owned(),
        state: Badge { tone, label },
        expires: Some(moment(103)),
        last_refreshed: Some(moment(-77)),
        connected: moment(-400),
        refresh_failures: 0,
    }
}

fn usage(heading: &str) -> Usage {
    let bar = |x, height| Bar {
        x,
        height,
        failed_height: height / 4,
        from: "2024-10-04 00:00 UTC".to_owned(),
        calls: height * 12,
        failures: height * 3,
        approvals: height,
        declines: 1,
    };
    Usage {
        id: "usage-default".to_owned(),
        heading: heading.to_owned(),
        periods: vec![PeriodLink {
            href: "/console?usage=24h".to_owned(),
            label: "24 hours",
            current: true,
        }],
        summary: "Calls, the last 24 hours: 2400 calls, 600 failed".to_owned(),
        width: 240,
        bars: vec![bar(0, 100), bar(10, 0), bar(20, 50)],
        sums: vec![
            ("Calls", "2400".to_owned()),
            ("Approval rate", "98.6 %".to_owned()),
        ],
    }
}

fn timeline() -> Vec<TimelineEntry> {
    let entry = |tone, what: &str, detail: Option<&str>, days| TimelineEntry {
        tone,
        what: what.to_owned(),
        detail: detail.map(str::to_owned),
        target: Some("seller-42".to_owned()),
        who: "system".to_owned(),
        at: moment(days),
    };
    vec![
        entry(Tone::Good, "Refresh succeeded", Some("scheduled, HTTP 200"), 0),
        entry(
            Tone::Warn,
            "Refresh failed",
            Some("scheduled, HTTP 503, temporarily_unavailable"),
            -1,
        ),
        entry(Tone::Bad, "Refresh refused", Some("invalid_grant"), -2),
        entry(Tone::Plain, HOSTILE, Some(HOSTILE), -3),
    ]
}

fn applications() -> Vec<Choice> {
    vec![
        Choice::new("default", "default", true),
        Choice::new("br", "br", false),
    ]
}

type Add<'a> = dyn FnMut(&str, &dyn askama::DynTemplate) + 'a;

/// Every console page with every sample, with a name.
pub(crate) fn samples() -> Vec<(String, String)> {
    let mut pages: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, page: &dyn askama::DynTemplate| {
        pages.push((name.to_owned(), page.dyn_render().unwrap()));
    };
    add_sign_in_and_overview(&mut add);
    add_connections(&mut add);
    add_connect_links(&mut add);
    add_events(&mut add);
    add_access(&mut add);
    add_rest(&mut add);
    pages
}

fn add_sign_in_and_overview(add: &mut Add<'_>) {
    for (name, problem) in [
        ("sign-in", None),
        ("sign-in-failed", Some("The e-mail or the password is wrong.")),
    ] {
        let email = if problem.is_some() {
            "ana@example.com".to_owned()
        } else {
            String::new()
        };
        let csrf_token = "token".to_owned();
        add(
            name,
            &SignIn {
                chrome: chrome(),
                problem,
                csrf_token,
                next: String::new(),
                email,
            },
        );
    }
    let count = |label, number, tone| Count {
        label,
        number,
        tone,
        href: "/console/connections?status=active",
    };
    add(
        "overview",
        &Overview {
            shell: shell("Overview", Place::Overview),
            problems: vec![
                "Refreshing of application default is stopped: Mercado Pago refuses its client_secret."
                    .to_owned(),
            ],
            counts: vec![
                count("Active", 1248, Tone::Good),
                count("Refresh failing", 3, Tone::Warn),
                count("Seller must reconnect", 7, Tone::Bad),
                count("Revoked", 41, Tone::Plain),
            ],
            usages: vec![usage(HOSTILE)],
            expiring: vec![
                row("panaderia-sur", Tone::Warn, "refresh failing"),
                row(HOSTILE, Tone::Bad, "reconnect required"),
            ],
            recent: timeline(),
        },
    );
    add(
        "overview-empty",
        &Overview {
            shell: shell("Overview", Place::Overview),
            problems: vec![],
            counts: vec![count("Active", 0, Tone::Good)],
            usages: vec![],
            expiring: vec![],
            recent: vec![],
        },
    );
}

fn add_connections(add: &mut Add<'_>) {
    add(
        "connections",
        &Connections {
            shell: shell("Connections", Place::Connections),
            q: HOSTILE.to_owned(),
            statuses: vec![
                Choice::new("active", "active", true),
                Choice::new("revoked", "revoked", false),
            ],
            applications: applications(),
            filtered: true,
            csv_href: "/console/connections.csv?q=x".to_owned(),
            rows: vec![
                row("seller-42", Tone::Good, "active"),
                row("panaderia-sur", Tone::Bad, "reconnect required"),
                row("taller.de.bicis:norte", Tone::Plain, "revoked"),
            ],
            pages: Pages {
                first: Some("/console/connections".to_owned()),
                next: Some("/console/connections?cursor=x".to_owned()),
            },
        },
    );
    add(
        "connections-empty",
        &Connections {
            shell: shell("Connections", Place::Connections),
            q: String::new(),
            statuses: vec![],
            applications: vec![],
            filtered: false,
            csv_href: "/console/connections.csv".to_owned(),
            rows: vec![],
            pages: Pages::default(),
        },
    );
    add(
        "connection",
        &Connection {
            shell: Shell {
                notice: Some(Notice {
                    tone: Tone::Good,
                    text: "The token was refreshed.".to_owned(),
                }),
                ..shell("seller-42", Place::Connections)
            },
            row: row("seller-42", Tone::Good, "active"),
            reason: Some("Mercado Pago refused the refresh token"),
            advice: Some(Notice {
                tone: Tone::Warn,
                text: "Only the seller can mend this: send a reconnect link.".to_owned(),
            }),
            usable: true,
            mode: "live",
            refresh_due: Some(moment(20)),
            scopes: vec!["offline_access".to_owned(), "read".to_owned(), "write".to_owned()],
            public_key: Some("APP_USR-00000000-0000-0000-0000-000000000000".to_owned()),
            metadata: Some("{\n  \"store\": \"<b>norte</b>\"\n}".to_owned()),
            may_refresh: true,
            may_revoke: true,
            reconnect_href: "/console/connect-links/new?seller_id=seller-42".to_owned(),
            timeline: timeline(),
            usage: usage("Calls"),
        },
    );
    add(
        "connection-revoked-viewer",
        &Connection {
            shell: Shell {
                may_change: false,
                is_owner: false,
                role: "viewer",
                ..shell("seller-42", Place::Connections)
            },
            row: ConnectionRow {
                expires: None,
                last_refreshed: None,
                ..row("seller-42", Tone::Plain, "revoked")
            },
            reason: None,
            advice: None,
            usable: false,
            mode: "unknown",
            refresh_due: None,
            scopes: vec![],
            public_key: None,
            metadata: None,
            may_refresh: false,
            may_revoke: false,
            reconnect_href: "/console/connect-links/new?seller_id=seller-42".to_owned(),
            timeline: vec![],
            usage: Usage {
                bars: vec![],
                ..usage("Calls")
            },
        },
    );
}

fn add_connect_links(add: &mut Add<'_>) {
    add(
        "confirm",
        &Confirm {
            shell: shell("Revoke seller-42", Place::Connections),
            what: format!("The connection of {HOSTILE} will be ended."),
            consequence: "Its tokens are destroyed at once and calls answer 409. Only the seller can connect again.",
            action: "/console/connections/default/seller-42/revoke".to_owned(),
            button: "Revoke",
            back: "/console/connections/default/seller-42".to_owned(),
        },
    );
    add(
        "connect-link-new",
        &ConnectLinkNew {
            shell: shell("New connect link", Place::ConnectLink),
            form: ConnectLinkForm {
                problem: Some("a seller_id is 1 to 128 of A-Z a-z 0-9 . _ : -".to_owned()),
                seller_id: HOSTILE.to_owned(),
                return_url: "https://shop.example/back".to_owned(),
                replace: true,
            },
            applications: applications(),
            locales: vec![
                Choice::new("", "as the browser asks", true),
                Choice::new("es", "Español", false),
            ],
            lifetimes: vec![Choice::new("86400", "1 day", true)],
        },
    );
    add(
        "connect-link-created",
        &ConnectLinkCreated {
            shell: shell("Connect link", Place::ConnectLink),
            seller_id: "seller-42".to_owned(),
            url: "https://pay.example/connect/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_owned(),
            qr: crate::http::qr::svg(
                "https://pay.example/connect/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            )
            .unwrap(),
            expires: moment(1),
        },
    );
}

fn delivery_line() -> DeliveryLine {
    DeliveryLine {
        href: "/console/deliveries/dlv_0197aa".to_owned(),
        id: "dlv_0197aa".to_owned(),
        event_type: "notification.received".to_owned(),
        endpoint_url: HOSTILE.to_owned(),
        state: Badge {
            tone: Tone::Warn,
            label: "failing",
        },
        attempts: 3,
        last: Some(HOSTILE.to_owned()),
        created: moment(-1),
        next: Some(moment(1)),
    }
}

fn add_events(add: &mut Add<'_>) {
    let badge = |tone, label| Badge { tone, label };
    let text = || HOSTILE.to_owned();
    add(
        "notifications",
        &Notifications {
            shell: shell("Notifications", Place::Notifications),
            about: text(),
            topic: text(),
            unknown_sellers: true,
            rows: vec![NotificationLine {
                id: "ntf_0197aa".to_owned(),
                application: "default".to_owned(),
                received: moment(0),
                topic: text(),
                action: Some(text()),
                resource_id: Some(text()),
                user_id: Some(2_345_678_901),
                seller_id: Some("seller-42".to_owned()),
                seller_href: Some("/console/connections/default/seller-42".to_owned()),
                outcome: badge(Tone::Good, "told"),
                deliveries_href: Some("/console/deliveries?event=evt_0197aa".to_owned()),
                body: text(),
            }],
            pages: Pages::default(),
        },
    );
    add(
        "deliveries",
        &Deliveries {
            shell: shell("Deliveries", Place::Deliveries),
            statuses: vec![Choice::new("dead", "dead", true)],
            endpoints: vec![Choice::new("ep_0197aa", HOSTILE, false)],
            rows: vec![delivery_line()],
            pages: Pages::default(),
        },
    );
    add(
        "delivery",
        &Delivery {
            shell: shell("notification.received", Place::Deliveries),
            row: delivery_line(),
            event_id: "evt_0197aa".to_owned(),
            body: text(),
            attempts: vec![AttemptLine {
                number: 1,
                started: moment(-1),
                milliseconds: 12,
                result: "answered 500".to_owned(),
                answer: Some(text()),
            }],
        },
    );
    let endpoint = |id: &str, enabled| EndpointLine {
        id: id.to_owned(),
        application: "default".to_owned(),
        url: "https://platform.example/hooks".to_owned(),
        description: Some(text()),
        event_types: vec!["connection.revoked"],
        state: badge(Tone::Good, "enabled"),
        enabled,
        since: Some(moment(-2)),
        two_secrets_until: Some(moment(1)),
        deliveries_href: "/console/deliveries?endpoint=ep_0197aa".to_owned(),
    };
    add(
        "event-endpoints",
        &EventEndpoints {
            shell: shell("Event endpoints", Place::EventEndpoints),
            created: Some(CreatedSecret {
                url: text(),
                secret: EndpointSecret::new("whsec_sample"),
            }),
            rows: vec![endpoint("ep_0197aa", true), endpoint("ep_0197ab", false)],
            applications: applications(),
            event_types: vec![Choice::new("connection.revoked", "connection.revoked", true)],
            url: text(),
            problem: Some(text()),
        },
    );
}

fn add_access(add: &mut Add<'_>) {
    let key = |name: &str, tone, label, scopes| KeyRow {
        id: "key_0197aa".to_owned(),
        name: name.to_owned(),
        application: "default".to_owned(),
        state: Badge { tone, label },
        revocable: label == "valid",
        scopes,
        created: moment(-12),
        expires: (label == "valid").then(|| moment(78)),
        last_used: Some(moment(0)),
    };
    add(
        "api-keys",
        &ApiKeys {
            shell: shell("API keys", Place::ApiKeys),
            created: Some(CreatedKey {
                name: HOSTILE.to_owned(),
                secret: ApiKeySecret::new("mck_sample"),
            }),
            keys: vec![
                key(
                    "checkout service",
                    Tone::Good,
                    "valid",
                    vec!["proxy:*", "connections:read"],
                ),
                key(HOSTILE, Tone::Plain, "revoked", vec!["connect:write"]),
            ],
            applications: applications(),
            scopes: Scope::ALL
                .iter()
                .map(|scope| Choice::new(scope.as_str(), scope.as_str(), false))
                .collect(),
            problem: Some("choose at least one scope".to_owned()),
            name: HOSTILE.to_owned(),
        },
    );
    let admin = |email: &str, role, is_self| AdminRow {
        id: "adm_0197aa".to_owned(),
        email: email.to_owned(),
        role,
        created: moment(-90),
        is_self,
    };
    add(
        "team",
        &Team {
            shell: shell("Team", Place::Team),
            created: Some(CreatedPassword {
                email: "luz@example.com".to_owned(),
                password: Password::new("sample"),
            }),
            admins: vec![
                admin("ana@example.com", "owner", true),
                admin(HOSTILE, "viewer", false),
            ],
            roles: vec![
                Choice::new("viewer", "Viewer: reads", true),
                Choice::new("owner", "Owner: everything", false),
            ],
            problem: Some("there is an account with this address already".to_owned()),
            email: HOSTILE.to_owned(),
        },
    );
}

fn add_rest(add: &mut Add<'_>) {
    add(
        "audit-log",
        &AuditLog {
            shell: shell("Audit log", Place::AuditLog),
            target: HOSTILE.to_owned(),
            actions: vec![Choice::new("connection.revoked", "connection.revoked", true)],
            rows: vec![
                AuditLogRow {
                    at: moment(0),
                    action: "connection.revoked".to_owned(),
                    detail: Some(format!("{{\"reason\":\"{HOSTILE}\"}}")),
                    target: Some("seller-42".to_owned()),
                    application: Some("default".to_owned()),
                    actor_kind: "admin".to_owned(),
                    actor_id: Some("ana@example.com".to_owned()),
                    address: Some("203.0.113.7".to_owned()),
                    request_id: Some("0197aa00aa00aa00".to_owned()),
                },
                AuditLogRow {
                    at: moment(-3),
                    action: "connection.refreshed".to_owned(),
                    detail: None,
                    target: Some("panaderia-sur".to_owned()),
                    application: None,
                    actor_kind: "system".to_owned(),
                    actor_id: None,
                    address: None,
                    request_id: None,
                },
            ],
            pages: Pages::default(),
        },
    );
    add(
        "settings",
        &Settings {
            shell: shell("Settings", Place::Settings),
            settings: vec![
                SettingRow {
                    name: "PUBLIC_URL".to_owned(),
                    value: "https://pay.example".to_owned(),
                },
                SettingRow {
                    name: "MARKETPLACE_COLOR".to_owned(),
                    value: String::new(),
                },
            ],
        },
    );
    add(
        "error",
        &ErrorPage {
            chrome: chrome(),
            status: 403,
            title: "Not allowed",
            detail: HOSTILE.to_owned(),
            code: "insufficient_scope",
            request_id: "0197aa".to_owned(),
        },
    );
}
