//! Behind PgBouncer in transaction mode: one client's statements go to whichever server connection is free, so nothing may
//! live in a session (DESIGN.md section 11). It takes a PgBouncer that keeps prepared statements, which is 1.21 and newer;
//! an older one, or none, is said loudly and left out. `PGBOUNCER` names another program than the one on the path.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use crate::support::app::TestApp;
use crate::support::postgres;
use crate::support::process::until;

const SELLERS: usize = 24;
/// Fewer than the service has connections, so that each statement meets another server connection.
const SERVER_CONNECTIONS: usize = 3;
/// The first version that keeps prepared statements in transaction mode.
const NEEDED: (u32, u32) = (1, 21);

/// A PgBouncer before the shared cluster; it ends with this.
struct PgBouncer {
    folder: TempDir,
    process: Child,
}

impl PgBouncer {
    /// None where there is no PostgreSQL, or no PgBouncer that is new enough.
    async fn start() -> Option<(Self, String)> {
        let cluster = postgres::shared()?;
        let program = std::env::var("PGBOUNCER").unwrap_or_else(|_| "pgbouncer".to_owned());
        let version = version(&program);
        if version.is_none_or(|version| version < NEEDED) {
            // Straight to the stream: the test harness hides what `eprintln!` writes in a test that passes.
            let _ = writeln!(
                std::io::stderr(),
                "\n*** LEFT OUT: PgBouncer, because {program} is not 1.21 or newer ({version:?}) ***\n"
            );
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // As root it runs as PostgreSQL's user.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let database = cluster.create_database();
        let (server, host) = database.split_once("?host=").unwrap();
        let name = server.rsplit('/').next().unwrap();
        let path = folder.path().display();
        let settings = format!(
            "[databases]\n{name} = host={host} port=5432 dbname={name} user=postgres\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n\
             unix_socket_dir = {path}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\n\
             max_prepared_statements = 200\nlogfile = {path}/log\n"
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(&program);
        if Command::new("id").arg("-u").output().unwrap().stdout == b"0\n" {
            command.args(["-u", "postgres"]);
        }
        let process = command
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let socket = folder.path().join(".s.PGSQL.6432");
        let url = format!("postgres://postgres@localhost:6432/{name}?host={path}");
        let bouncer = Self { folder, process };
        until("PgBouncer listens", || socket.exists().then_some(())).await;
        Some((bouncer, url))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Major and minor version of a program; none if it cannot be run.
fn version(program: &str) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    let mut numbers = said.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_lives_in_a_session_of_postgresql() {
    let Some((bouncer, url)) = PgBouncer::start().await else {
        return;
    };
    let app = Arc::new(TestApp::with(|settings| drop(settings.insert("DATABASE_URL", url))).await);
    app.connect_seller("seller-0").await;
    let sellers: Vec<_> = (1..=SELLERS)
        .map(|number| {
            let app = Arc::clone(&app);
            tokio::spawn(async move {
                let seller = format!("seller-{number}");
                let tokens = json!({
                    "seller_id": seller, "user_id": 9_000 + number, "access_token": format!("APP_USR-{number}"),
                    "refresh_token": format!("TG-{number}"), "expires_in": 15_552_000, "verify": false,
                });
                app.platform().post("/v1/connections", tokens).await.expect(201);
                for _ in 0..5 {
                    app.platform().connect_link(&seller).await;
                    assert_eq!(app.platform().connection(&seller).await["user_id"], 9_000 + number);
                    app.proxied_get("seller-0", "/users/me").await.expect(200);
                    app.platform().get("/v1/connections?limit=5").await.expect(200);
                }
                app.platform().delete(&format!("/v1/connections/{seller}")).await.expect(200)
            })
        })
        .collect();
    for seller in sellers {
        assert_eq!(
            seller.await.unwrap().json()["status"],
            "revoked",
            "{}",
            bouncer.log()
        );
    }
}
