//! The console's pages as contexts. What is shown to whom is decided by the handlers; `may_change` and `is_owner` only keep
//! buttons away that would be refused anyway.

use askama::Template;

use super::{Moment, Tone};
use crate::domain::secret::{ApiKeySecret, Password};
use crate::http::branding::Chrome;

/// A page of the console's menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Overview,
    Connections,
    ConnectLink,
    ApiKeys,
    Team,
    AuditLog,
    Settings,
}

/// One entry of the menu.
#[derive(Debug)]
pub(crate) struct MenuItem {
    pub(crate) href: &'static str,
    pub(crate) label: &'static str,
    pub(crate) icon: &'static str,
    pub(crate) current: bool,
}

/// A message at the head of a page.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) tone: Tone,
    pub(crate) text: String,
}

/// What stands around every page of a signed-in admin.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) chrome: Chrome,
    pub(crate) title: String,
    pub(crate) place: Place,
    pub(crate) email: String,
    pub(crate) role: &'static str,
    /// Whether links, refreshes and revokes are offered.
    pub(crate) may_change: bool,
    /// Whether keys and team can be changed.
    pub(crate) is_owner: bool,
    pub(crate) csrf_token: String,
    pub(crate) notice: Option<Notice>,
}

impl Shell {
    /// The menu: what the admin's role may open.
    pub(crate) fn navigation(&self) -> Vec<MenuItem> {
        let all = [
            (Place::Overview, "/console", "Overview", "home"),
            (Place::Connections, "/console/connections", "Connections", "store"),
            (
                Place::ConnectLink,
                "/console/connect-links/new",
                "New connect link",
                "link",
            ),
            (Place::ApiKeys, "/console/api-keys", "API keys", "key"),
            (Place::Team, "/console/team", "Team", "people"),
            (Place::AuditLog, "/console/audit-log", "Audit log", "list"),
            (Place::Settings, "/console/settings", "Settings", "gear"),
        ];
        all.into_iter()
            .filter(|(place, ..)| *place != Place::ConnectLink || self.may_change)
            .map(|(place, href, label, icon)| MenuItem {
                href,
                label,
                icon,
                current: place == self.place,
            })
            .collect()
    }
}

/// A state as a badge.
#[derive(Debug, Clone)]
pub(crate) struct Badge {
    pub(crate) tone: Tone,
    pub(crate) label: &'static str,
}

/// An entry of a select, a radio group or a list of checkboxes.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) value: String,
    pub(crate) label: String,
    pub(crate) selected: bool,
}

impl Choice {
    pub(crate) fn new(value: &str, label: &str, selected: bool) -> Self {
        Self {
            value: value.to_owned(),
            label: label.to_owned(),
            selected,
        }
    }
}

/// Where the pages before and after are.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pub(crate) first: Option<String>,
    pub(crate) next: Option<String>,
}

#[derive(Debug, Template)]
#[template(path = "console/sign_in.html")]
pub(crate) struct SignIn {
    pub(crate) chrome: Chrome,
    pub(crate) problem: Option<&'static str>,
    pub(crate) csrf_token: String,
    pub(crate) next: String,
    pub(crate) email: String,
}

/// A number with what it counts and where those are listed.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) label: &'static str,
    pub(crate) number: i64,
    pub(crate) tone: Tone,
    pub(crate) href: &'static str,
}

/// A line of a timeline.
#[derive(Debug)]
pub(crate) struct TimelineEntry {
    pub(crate) tone: Tone,
    pub(crate) what: String,
    pub(crate) detail: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) who: String,
    pub(crate) at: Moment,
}

/// A connection in a list.
#[derive(Debug)]
pub(crate) struct ConnectionRow {
    pub(crate) href: String,
    pub(crate) seller_id: String,
    pub(crate) application: String,
    pub(crate) user_id: String,
    pub(crate) state: Badge,
    pub(crate) expires: Option<Moment>,
    pub(crate) last_refreshed: Option<Moment>,
    pub(crate) connected: Moment,
    pub(crate) refresh_failures: i64,
}

#[derive(Debug, Template)]
#[template(path = "console/overview.html")]
pub(crate) struct Overview {
    pub(crate) shell: Shell,
    pub(crate) problems: Vec<String>,
    pub(crate) counts: Vec<Count>,
    pub(crate) expiring: Vec<ConnectionRow>,
    pub(crate) recent: Vec<TimelineEntry>,
}

#[derive(Debug, Template)]
#[template(path = "console/connections.html")]
pub(crate) struct Connections {
    pub(crate) shell: Shell,
    pub(crate) q: String,
    pub(crate) statuses: Vec<Choice>,
    pub(crate) applications: Vec<Choice>,
    pub(crate) filtered: bool,
    pub(crate) csv_href: String,
    pub(crate) rows: Vec<ConnectionRow>,
    pub(crate) pages: Pages,
}

#[derive(Debug, Template)]
#[template(path = "console/connection.html")]
pub(crate) struct Connection {
    pub(crate) shell: Shell,
    pub(crate) row: ConnectionRow,
    pub(crate) reason: Option<&'static str>,
    pub(crate) advice: Option<Notice>,
    pub(crate) usable: bool,
    pub(crate) mode: &'static str,
    pub(crate) refresh_due: Option<Moment>,
    pub(crate) scopes: Vec<String>,
    pub(crate) public_key: Option<String>,
    pub(crate) metadata: Option<String>,
    pub(crate) may_refresh: bool,
    pub(crate) may_revoke: bool,
    pub(crate) reconnect_href: String,
    pub(crate) timeline: Vec<TimelineEntry>,
}

/// Asks before something is destroyed.
#[derive(Debug, Template)]
#[template(path = "console/confirm.html")]
pub(crate) struct Confirm {
    pub(crate) shell: Shell,
    pub(crate) what: String,
    pub(crate) consequence: &'static str,
    pub(crate) action: String,
    pub(crate) button: &'static str,
    pub(crate) back: String,
}

/// What was typed into the form of a new connect link.
#[derive(Debug, Default)]
pub(crate) struct ConnectLinkForm {
    pub(crate) problem: Option<String>,
    pub(crate) seller_id: String,
    pub(crate) return_url: String,
    pub(crate) replace: bool,
}

#[derive(Debug, Template)]
#[template(path = "console/connect_link_new.html")]
pub(crate) struct ConnectLinkNew {
    pub(crate) shell: Shell,
    pub(crate) form: ConnectLinkForm,
    pub(crate) applications: Vec<Choice>,
    pub(crate) locales: Vec<Choice>,
    pub(crate) lifetimes: Vec<Choice>,
}

#[derive(Debug, Template)]
#[template(path = "console/connect_link_created.html")]
pub(crate) struct ConnectLinkCreated {
    pub(crate) shell: Shell,
    pub(crate) seller_id: String,
    pub(crate) url: String,
    /// An SVG element of ours.
    pub(crate) qr: String,
    pub(crate) expires: Moment,
}

/// A key that was just made: the only time that its secret is shown.
#[derive(Debug)]
pub(crate) struct CreatedKey {
    pub(crate) name: String,
    pub(crate) secret: ApiKeySecret,
}

#[derive(Debug)]
pub(crate) struct KeyRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) application: String,
    pub(crate) state: Badge,
    pub(crate) revocable: bool,
    pub(crate) scopes: Vec<&'static str>,
    pub(crate) created: Moment,
    pub(crate) expires: Option<Moment>,
    pub(crate) last_used: Option<Moment>,
}

#[derive(Debug, Template)]
#[template(path = "console/api_keys.html")]
pub(crate) struct ApiKeys {
    pub(crate) shell: Shell,
    pub(crate) created: Option<CreatedKey>,
    pub(crate) keys: Vec<KeyRow>,
    pub(crate) applications: Vec<Choice>,
    pub(crate) scopes: Vec<Choice>,
    pub(crate) problem: Option<String>,
    pub(crate) name: String,
}

/// A password that was just made: the only time that it is shown.
#[derive(Debug)]
pub(crate) struct CreatedPassword {
    pub(crate) email: String,
    pub(crate) password: Password,
}

#[derive(Debug)]
pub(crate) struct AdminRow {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) role: &'static str,
    pub(crate) created: Moment,
    pub(crate) is_self: bool,
}

#[derive(Debug, Template)]
#[template(path = "console/team.html")]
pub(crate) struct Team {
    pub(crate) shell: Shell,
    pub(crate) created: Option<CreatedPassword>,
    pub(crate) admins: Vec<AdminRow>,
    pub(crate) roles: Vec<Choice>,
    pub(crate) problem: Option<String>,
    pub(crate) email: String,
}

#[derive(Debug)]
pub(crate) struct AuditLogRow {
    pub(crate) at: Moment,
    pub(crate) action: String,
    pub(crate) detail: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) application: Option<String>,
    pub(crate) actor_kind: String,
    pub(crate) actor_id: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) request_id: Option<String>,
}

#[derive(Debug, Template)]
#[template(path = "console/audit_log.html")]
pub(crate) struct AuditLog {
    pub(crate) shell: Shell,
    pub(crate) target: String,
    pub(crate) actions: Vec<Choice>,
    pub(crate) rows: Vec<AuditLogRow>,
    pub(crate) pages: Pages,
}

/// A setting as it may be shown: secrets are left out before they come here.
#[derive(Debug)]
pub(crate) struct SettingRow {
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Debug, Template)]
#[template(path = "console/settings.html")]
pub(crate) struct Settings {
    pub(crate) shell: Shell,
    pub(crate) settings: Vec<SettingRow>,
}

/// An error, for a browser.
#[derive(Debug, Template)]
#[template(path = "console/error.html")]
pub(crate) struct ErrorPage {
    pub(crate) chrome: Chrome,
    pub(crate) status: u16,
    pub(crate) title: &'static str,
    pub(crate) detail: String,
    pub(crate) code: &'static str,
    pub(crate) request_id: String,
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::{DateTime, Duration, Utc};

    use super::*;
    use crate::domain::scope::Scope;
    use crate::http::branding::Branding;
    use crate::http::pages::tests::assert_sound;

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

    /// Every console page with every sample, with a name.
    pub(crate) fn samples() -> Vec<(String, String)> {
        let mut pages: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, page: &dyn askama::DynTemplate| {
            pages.push((name.to_owned(), page.dyn_render().unwrap()))
        };
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
                expiring: vec![],
                recent: vec![],
            },
        );
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
            },
        );
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
        pages
    }

    #[test]
    fn every_page_renders_and_escapes_what_others_chose() {
        for (name, html) in samples() {
            assert_sound(&name, &html);
            assert!(
                !html.contains("<script>") && !html.contains("\"=cmd"),
                "{name} does not escape"
            );
        }
    }

    #[test]
    fn a_viewer_is_not_offered_what_would_be_refused() {
        let pages = samples();
        let (_, html) = pages
            .iter()
            .find(|(name, _)| name == "connection-revoked-viewer")
            .unwrap();
        for absent in ["/revoke", "/refresh", "/console/connect-links/new"] {
            assert!(!html.contains(absent), "{absent}");
        }
    }
}
