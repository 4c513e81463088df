//! `admins`: who signs in to the console.

use std::io::Read as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::operator::Operator;
use super::output::{Format, Output, local, table};
use crate::access::{self, AccessError};
use crate::domain::event::Actor;
use crate::domain::secret::Password;
use crate::storage::{Admin, Role, StoreError};

#[derive(Debug, Subcommand)]
pub(super) enum Admins {
    /// Make an admin; prints a password, unless one is given on standard input
    Create(Create),
    /// List the admins
    List(Format),
    /// Remove an admin and end their sessions
    Remove(One),
    /// Give an admin another password and end their sessions; prints it, unless one is given on standard input
    ResetPassword(ResetPassword),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// E-mail address to sign in with
    email: String,
    /// `owner`, `operator` or `viewer`
    #[arg(long, default_value = "owner", value_parser = role)]
    role: Role,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// E-mail address of the admin
    email: String,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct ResetPassword {
    #[command(flatten)]
    one: One,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
}

fn role(text: &str) -> Result<Role, String> {
    text.parse()
        .map_err(|_| "a role is `owner`, `operator` or `viewer`".to_owned())
}

impl Admins {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let operator = Operator::open().await?;
        match self {
            Self::Create(arguments) => arguments.run(&operator).await,
            Self::List(format) => list(&operator, format).await,
            Self::Remove(arguments) => arguments.remove(&operator).await,
            Self::ResetPassword(arguments) => arguments.run(&operator).await,
        }
    }
}

impl Create {
    async fn run(self, operator: &Operator) -> anyhow::Result<()> {
        let valid = self
            .email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
        anyhow::ensure!(
            valid && self.email.len() <= 254,
            "`{}` is no e-mail address",
            self.email
        );
        let password = NewPassword::choose(self.password_stdin, operator)?;
        let created = access::create_admin(
            &operator.store,
            &self.email,
            self.role,
            &password.password,
            Actor::operator(),
            operator.now(),
            &operator.random,
        )
        .await;
        let admin = match created {
            Err(AccessError::Store(StoreError::Conflict)) => {
                anyhow::bail!("there is an admin {} already", self.email)
            }
            created => created?,
        };
        let value = json!({
            "email": admin.email,
            "role": admin.role,
            "created_at": admin.created_at,
            "password": password.shown(),
        });
        Output::new(self.format).result(&value, &password.told(&admin.email))
    }
}

async fn list(operator: &Operator, format: Format) -> anyhow::Result<()> {
    let admins = operator.store.list_admins().await?;
    let row = |admin: &Admin| {
        [
            admin.email.clone(),
            admin.role.to_string(),
            local(admin.created_at),
        ]
    };
    let text = table(["e-mail", "role", "created"], admins.iter().map(row));
    let view =
        |admin: &Admin| json!({ "email": admin.email, "role": admin.role, "created_at": admin.created_at });
    Output::new(format).result(&admins.iter().map(view).collect::<Vec<_>>(), &text)
}

impl One {
    async fn remove(self, operator: &Operator) -> anyhow::Result<()> {
        let removed = operator
            .store
            .remove_admin(&self.email, Actor::operator(), operator.now())
            .await?;
        anyhow::ensure!(removed, "there is no admin {}", self.email);
        let value = json!({ "email": self.email, "removed": true });
        Output::new(self.format).result(&value, &format!("{} is removed", self.email))
    }
}

impl ResetPassword {
    async fn run(self, operator: &Operator) -> anyhow::Result<()> {
        let email = &self.one.email;
        let password = NewPassword::choose(self.password_stdin, operator)?;
        let (store, random) = (&operator.store, &operator.random);
        let reset = access::reset_password(
            store,
            email,
            &password.password,
            Actor::operator(),
            operator.now(),
            random,
        )
        .await?;
        anyhow::ensure!(reset, "there is no admin {email}");
        let value = json!({ "email": email, "password": password.shown() });
        Output::new(self.one.format).result(&value, &password.told(email))
    }
}

/// A password that an admin gets.
struct NewPassword {
    password: Password,
    /// Whether it was made here and has to be told.
    generated: bool,
}

impl NewPassword {
    fn choose(from_stdin: bool, operator: &Operator) -> anyhow::Result<Self> {
        if !from_stdin {
            return Ok(Self {
                password: access::generate_password(&operator.random),
                generated: true,
            });
        }
        let mut text = String::new();
        std::io::stdin()
            .take(4096)
            .read_to_string(&mut text)
            .context("no password on standard input")?;
        Ok(Self {
            password: Password::new(text.trim_end_matches(['\r', '\n'])),
            generated: false,
        })
    }

    fn shown(&self) -> Option<&str> {
        self.generated.then(|| self.password.expose())
    }

    fn told(&self, email: &str) -> String {
        match self.shown() {
            Some(password) => {
                format!("{password}\n\nThis is the password of {email}. It is not shown again.")
            }
            None => format!("{email} has the password that was given"),
        }
    }
}
