//! The command line (DESIGN.md section 3).
//!
//! Guarantees exit code 0 for done, 1 for failed and 2 for bad usage or settings; that what a command gives goes to
//! standard output and everything else to standard error; and that each command reads only the settings that it needs.

mod admins;
mod api_keys;
mod audit;
mod connect_links;
mod connections;
mod demo;
mod doctor;
mod events;
mod export;
mod keys;
mod migrate;
mod openapi;
mod operator;
mod output;
mod sandbox;
mod serve;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Problem;
use operator::block_on;

/// Connects a marketplace's sellers to Mercado Pago, keeps their tokens sealed and fresh, and proxies the platform's calls
/// with the right seller's token.
///
/// Settings come from environment variables and a `.env` file; `.env.example` lists them all.
#[derive(Debug, Parser)]
#[command(name = "marketplace-connector", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::Serve),
    /// Run connector and sandbox with nothing to configure
    ///
    /// Prints a connect link, the console's address and password, an API key, and calls to paste. Ignores the environment
    /// and `.env`. Nothing in it is real money.
    Demo(demo::Demo),
    /// Bring the database up to date
    Migrate,
    /// Make encryption keys, and see which are in use
    #[command(subcommand)]
    Keys(keys::Keys),
    /// The platform's API keys
    #[command(subcommand)]
    ApiKeys(api_keys::ApiKeys),
    /// Who signs in to the console
    #[command(subcommand)]
    Admins(admins::Admins),
    /// The sellers' connections
    #[command(subcommand)]
    Connections(connections::Connections),
    /// The record of who did what
    #[command(subcommand)]
    Audit(audit::Audit),
    /// The links that sellers connect by
    #[command(subcommand)]
    ConnectLinks(connect_links::ConnectLinks),
    /// Where the platform is told of events
    #[command(subcommand)]
    EventEndpoints(events::EventEndpoints),
    /// What happened
    #[command(subcommand)]
    Events(events::Events),
    /// What was sent to which event endpoint
    #[command(subcommand)]
    Deliveries(events::Deliveries),
    /// Check settings, database, keys, clock and the way to Mercado Pago
    Doctor(doctor::Doctor),
    /// Print the OpenAPI 3.1 document of the API
    Openapi,
    /// Run a simulated Mercado Pago, to develop and test against
    Sandbox(Box<sandbox::Sandbox>),
}

/// The settings are wrong: exit code 2, where every other failure is 1.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
struct WrongSettings(Vec<Problem>);

/// Runs the command that `arguments` (the program's name first) ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version come as errors too; clap knows which stream and which code.
            let _ = message.print();
            return ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(2));
        }
    };
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tell(&error, &mut std::io::stderr().lock()),
    }
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Serve(command) => block_on(command.run()),
            Self::Demo(command) => block_on(command.run()),
            Self::Migrate => block_on(migrate::run()),
            Self::Keys(command) => command.run(),
            Self::ApiKeys(command) => block_on(command.run()),
            Self::Admins(command) => block_on(command.run()),
            Self::Connections(command) => block_on(command.run()),
            Self::Audit(command) => block_on(command.run()),
            Self::ConnectLinks(command) => block_on(command.run()),
            Self::EventEndpoints(command) => block_on(command.run()),
            Self::Events(command) => block_on(command.run()),
            Self::Deliveries(command) => block_on(command.run()),
            Self::Doctor(command) => block_on(command.run()),
            Self::Openapi => openapi::run(),
            Self::Sandbox(command) => block_on(command.run()),
        }
    }
}

/// Writes why a command failed. What cannot be written is not told: there is nowhere to tell it.
fn tell(error: &anyhow::Error, to: &mut dyn Write) -> ExitCode {
    if error.is::<WrongSettings>() {
        let _ = writeln!(to, "{error}");
        return ExitCode::from(2);
    }
    let reader_left = |io: &std::io::Error| io.kind() == std::io::ErrorKind::BrokenPipe;
    if error.downcast_ref().is_some_and(reader_left) {
        // `... | head` has read what it wanted.
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(to, "error: {error:#}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_and_argument_is_explained() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no help");
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(
                    argument.get_help().is_some(),
                    "{path} {} has no help",
                    argument.get_id()
                );
            }
            for command in command.get_subcommands() {
                check(command, &path);
            }
        }
        Cli::command().debug_assert();
        check(&Cli::command(), "");
    }
}
