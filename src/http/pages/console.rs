//! The console's pages as contexts. What is shown to whom is decided by the handlers; `may_change` and `is_owner` only keep
//! buttons away that would be refused anyway.

use askama::Template;

use super::usage::Usage;
use super::{Moment, Tone};
use crate::domain::secret::{ApiKeySecret, Password};
use crate::http::branding::Chrome;

/// A page of the console's menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Overview,
    Connections,
    ConnectLink,
    Notifications,
    Deliveries,
    EventEndpoints,
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
            (
                Place::Notifications,
                "/console/notifications",
                "Notifications",
                "bell",
            ),
            (Place::Deliveries, "/console/deliveries", "Deliveries", "send"),
            (
                Place::EventEndpoints,
                "/console/event-endpoints",
                "Event endpoints",
                "target",
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
    pub(crate) usages: Vec<Usage>,
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
    pub(crate) usage: Usage,
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
mod tests {
    use crate::http::pages::samples::samples;
    use crate::http::pages::tests::assert_sound;

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
