//! The applications: `default` from the `MERCADOPAGO_...` settings, and more from `APPLICATIONS_FILE`, where each is a
//! `[slug]` table with the same names in lower case and without prefix.
//!
//! Guarantees that an unknown name in the file is a problem (a mistyped `client_secert` must not be left out silently) and
//! that no problem repeats a line of the file, which holds secrets.

use std::path::Path;

use url::Url;

use super::reader::{Problem, Reader, read_text};
use super::settings::{self as name, SETTINGS, Setting};
use super::values;
use crate::domain::ids::ApplicationId;
use crate::domain::secret::{ClientSecret, WebhookSecret};
use crate::mercadopago::application::{Application, Applications};

const PREFIX: &str = "MERCADOPAGO_";

/// Reads all applications. None only if there is a problem.
pub(super) fn read(r: &mut Reader<'_>, public_url: Option<&Url>) -> Option<Applications> {
    let default = read_one(r, ApplicationId::default_application(), public_url);
    let file = r.optional(name::APPLICATIONS_FILE, |text| {
        Ok((text.to_owned(), read_text(Path::new(text))))
    });
    let more = match file {
        None => Vec::new(),
        Some((_, Ok(text))) => read_file(r, &text, public_url),
        Some((path, Err(error))) => {
            r.problem(
                name::APPLICATIONS_FILE.name,
                format!("names `{path}`, which cannot be read: {error}"),
            );
            Vec::new()
        }
    };
    Some(Applications::new(std::iter::once(default?).chain(more).collect()))
}

fn read_file(r: &mut Reader<'_>, text: &str, public_url: Option<&Url>) -> Vec<Application> {
    let tables: toml::Table = match text.parse() {
        Ok(tables) => tables,
        Err(error) => {
            let problem = syntax_problem(text, &error);
            r.problem(name::APPLICATIONS_FILE.name, problem);
            return Vec::new();
        }
    };
    let mut applications = Vec::new();
    for (slug, table) in &tables {
        let Some(table) = table.as_table() else {
            r.problem(
                name::APPLICATIONS_FILE.name,
                format!("`{slug}` stands outside a table; begin with `[slug]`"),
            );
            continue;
        };
        match slug.parse() {
            Ok(id) if id == ApplicationId::default_application() => r.problem(
                name::APPLICATIONS_FILE.name,
                "[default] is the application of the MERCADOPAGO_... settings; give it another slug",
            ),
            Ok(id) => {
                let (application, problems) = read_table(&id, table, public_url);
                r.add(problems);
                applications.extend(application);
            }
            Err(error) => r.problem(name::APPLICATIONS_FILE.name, format!("[{slug}]: {error}")),
        }
    }
    applications
}

/// What is wrong with the file's syntax, by line number: the line itself may hold a secret.
fn syntax_problem(text: &str, error: &toml::de::Error) -> String {
    let offset = error.span().map_or(0, |span| span.start);
    let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
    format!("is not TOML at line {line}; write `name = \"value\"` under `[slug]`, each name once")
}

fn read_table(
    id: &ApplicationId,
    table: &toml::Table,
    public_url: Option<&Url>,
) -> (Option<Application>, Vec<Problem>) {
    let label = |name: &str| {
        let key = name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase();
        format!("{} [{id}] {key}", name::APPLICATIONS_FILE.name)
    };
    let source = |name: &str| match table.get(&name.strip_prefix(PREFIX)?.to_ascii_lowercase())? {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Boolean(value) => Some(value.to_string()),
        toml::Value::Integer(value) => Some(value.to_string()),
        _ => None,
    };
    let mut reader = Reader::labelled(&source, &label);
    for key in table.keys() {
        let setting_name = format!("{PREFIX}{}", key.to_ascii_uppercase());
        let known = key.bytes().all(|b| !b.is_ascii_uppercase()) && is_of_application(&setting_name);
        if !known {
            reader.problem(
                &setting_name,
                "is no setting of an application; correct its name or remove it",
            );
        } else if source(&setting_name).is_none() {
            reader.problem(&setting_name, "must be text in quotes");
        }
    }
    let application = read_one(&mut reader, id.clone(), public_url);
    (application, reader.finish())
}

fn is_of_application(setting_name: &str) -> bool {
    let matches = |setting: &Setting| {
        setting.name == setting_name
            || (setting.secret && setting_name.strip_suffix("_FILE") == Some(setting.name))
    };
    SETTINGS
        .iter()
        .any(|setting| setting.name.starts_with(PREFIX) && matches(setting))
}

fn read_one(r: &mut Reader<'_>, id: ApplicationId, public_url: Option<&Url>) -> Option<Application> {
    let client_id = r.value(name::MERCADOPAGO_CLIENT_ID, |text| {
        // It stands in URLs and JSON; Mercado Pago's are digits, other providers' need not be.
        let visible = text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        if visible {
            Ok(text.to_owned())
        } else {
            Err("must be the application's number at Mercado Pago".to_owned())
        }
    });
    let client_secret = r.value(name::MERCADOPAGO_CLIENT_SECRET, |text| {
        Ok(ClientSecret::new(text))
    });
    let client_secret_previous = r.optional(name::MERCADOPAGO_CLIENT_SECRET_PREVIOUS, |text| {
        Ok(ClientSecret::new(text))
    });
    let webhook_secret = r.optional(name::MERCADOPAGO_WEBHOOK_SECRET, |text| {
        Ok(WebhookSecret::new(text))
    });
    let webhook_secret_previous = r.optional(name::MERCADOPAGO_WEBHOOK_SECRET_PREVIOUS, |text| {
        Ok(WebhookSecret::new(text))
    });
    if webhook_secret_previous.is_some() && !r.is_set(name::MERCADOPAGO_WEBHOOK_SECRET) {
        let name = name::MERCADOPAGO_WEBHOOK_SECRET_PREVIOUS.name;
        r.problem(
            name,
            "is set without the current one; set the current one too or remove it",
        );
    }
    let authorization_url = r.value(name::MERCADOPAGO_AUTHORIZATION_URL, values::url);
    let api_url = r.value(name::MERCADOPAGO_API_URL, values::base_url);
    let public_key = r.optional(name::MERCADOPAGO_PUBLIC_KEY, |text| Ok(text.to_owned()));
    let test_tokens = r.value(name::MERCADOPAGO_TEST_TOKENS, values::boolean);
    let revoke_url = r.optional(name::MERCADOPAGO_REVOKE_URL, values::url_template);
    Some(Application {
        id,
        client_id: client_id?,
        client_secret: client_secret?,
        client_secret_previous,
        webhook_secret,
        webhook_secret_previous,
        authorization_url: authorization_url?,
        api_url: api_url?,
        redirect_uri: format!("{}/oauth/callback", public_url?.as_str().trim_end_matches('/')),
        public_key,
        test_tokens: test_tokens?,
        revoke_url,
    })
}
