//! The replicas and their database, and when each of them was away: whoever plays with them needs that to tell a failure
//! from an absence.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};
use tokio::sync::Mutex as AsyncMutex;
use url::Url;

use crate::provider::{Granted, Provider};
use crate::support::postgres::Cluster;
use crate::support::process::Service;

/// How often a replica that could not start is started again.
const START_AGAIN: Duration = Duration::from_millis(100);

/// From when until when something was away; without an end, it still is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Absence {
    pub(crate) from: Instant,
    pub(crate) until: Option<Instant>,
}

impl Absence {
    /// Whether it has an instant in common with this time.
    pub(crate) fn touches(&self, from: Instant, until: Instant) -> bool {
        self.from <= until && self.until.is_none_or(|end| end >= from)
    }
}

/// Where a replica is, for callers.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) address: Url,
    /// Raised by each start.
    pub(crate) life: usize,
}

/// Replicas on one database.
pub(crate) struct Fleet {
    pub(crate) cluster: Option<Cluster>,
    pub(crate) replicas: Vec<Replica>,
    store_away: Mutex<Vec<Absence>>,
}

/// One process after the other, on one folder.
pub(crate) struct Replica {
    pub(crate) service: AsyncMutex<Service>,
    door: Mutex<Door>,
    away: Mutex<Vec<Absence>>,
    /// Answers that were on the disk when the process was killed, by connection and generation that was spent.
    rescued: Mutex<Vec<(String, i64)>>,
}

impl Fleet {
    /// Starts so many replicas on PostgreSQL, or on SQLite without a cluster.
    pub(crate) async fn start(
        cluster: Option<Cluster>,
        provider: &Provider,
        count: usize,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let url = cluster.as_ref().map(Cluster::create_database);
        let mut replicas = Vec::new();
        for number in 0..count {
            let mut settings = settings.to_vec();
            if let Some(url) = &url {
                settings.push(("DATABASE_URL", url));
            }
            let service = Service::with(provider.origin(number), &settings).await;
            replicas.push(Replica {
                door: Mutex::new(Door {
                    address: service.target.address.clone(),
                    life: 0,
                }),
                service: AsyncMutex::new(service),
                away: Mutex::default(),
                rescued: Mutex::default(),
            });
        }
        Self {
            cluster,
            replicas,
            store_away: Mutex::default(),
        }
    }

    /// Hands the sellers over with the tokens that they consented to, as whoever migrates does.
    pub(crate) async fn import(&self, provider: &Provider) {
        self.import_with(provider, 0, |granted| granted.expires_at).await;
    }

    /// The same with another idea of when the access tokens end, and with so many sellers more who are never called.
    pub(crate) async fn import_with(
        &self,
        provider: &Provider,
        idle: usize,
        expires_at: impl Fn(&Granted) -> DateTime<Utc>,
    ) {
        let service = self.replicas[0].service.lock().await;
        let lines = provider.sellers.iter().enumerate().map(|(seller, granted)| {
            let line = json!({
                "seller_id": seller_id(seller),
                "user_id": granted.user_id,
                "access_token": granted.access_token,
                "refresh_token": granted.refresh_token,
                "expires_at": expires_at(granted),
                "scope": "offline_access read write",
                "verify": false,
            });
            format!("{line}\n")
        });
        let file = service.folder().join("sellers.ndjson");
        let idle = (0..idle).map(|number| {
            let line = json!({
                "seller_id": format!("idle-{number:06}"),
                "user_id": 1 + number,
                "access_token": format!("APP_USR-{number}"),
                "refresh_token": format!("TG-{number}"),
                "expires_in": 15_552_000,
                "verify": false,
            });
            format!("{line}\n")
        });
        std::fs::write(&file, lines.chain(idle).collect::<String>()).unwrap();
        let output = service.run(&["connections", "import", file.to_str().unwrap()]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Crashes PostgreSQL.
    pub(crate) fn stop_store(&self) {
        self.store_away.lock().unwrap().push(Absence {
            from: Instant::now(),
            until: None,
        });
        tokio::task::block_in_place(|| self.cluster.as_ref().unwrap().stop());
    }

    /// Starts PostgreSQL again.
    pub(crate) fn resume_store(&self) {
        tokio::task::block_in_place(|| self.cluster.as_ref().unwrap().resume());
        if let Some(absence) = self.store_away.lock().unwrap().last_mut() {
            absence.until = Some(Instant::now());
        }
    }

    /// Kills a replica, lets it be dead for a while, and starts it until it runs.
    pub(crate) async fn kill_and_start(&self, number: usize, pause: Duration) {
        self.replicas[number].kill().await;
        tokio::time::sleep(pause).await;
        self.replicas[number].start().await;
    }

    /// Crashes PostgreSQL and starts it again.
    pub(crate) async fn restart_store(&self, pause: Duration) {
        self.stop_store();
        tokio::time::sleep(pause).await;
        self.resume_store();
    }

    pub(crate) fn store_away(&self) -> Vec<Absence> {
        self.store_away.lock().unwrap().clone()
    }

    /// The seller by the id of the connection, from the database itself.
    pub(crate) async fn sellers_by_connection(&self) -> HashMap<String, usize> {
        const SQL: &str = "SELECT id, seller_id FROM connections";
        let service = self.replicas[0].service.lock().await;
        let rows: Vec<(String, String)> = if self.cluster.is_some() {
            let mut connection = PgConnection::connect(&service.settings["DATABASE_URL"])
                .await
                .unwrap();
            sqlx::query_as(SQL).fetch_all(&mut connection).await.unwrap()
        } else {
            let mut connection = SqliteConnection::connect(&service.settings["DATABASE_URL"])
                .await
                .unwrap();
            sqlx::query_as(SQL).fetch_all(&mut connection).await.unwrap()
        };
        let rows = rows.into_iter();
        rows.map(|(id, seller)| (id, seller_number(&seller).unwrap()))
            .collect()
    }
}

impl Replica {
    pub(crate) async fn kill(&self) {
        let mut service = self.service.lock().await;
        self.away.lock().unwrap().push(Absence {
            from: Instant::now(),
            until: None,
        });
        service.kill();
        let rescued = service.rescued_answers();
        self.rescued
            .lock()
            .unwrap()
            .extend(rescued.iter().filter_map(|path| subject(path)));
    }

    /// Ends it as a deployment does: it finishes what is under way.
    pub(crate) async fn stop(&self) {
        let mut service = self.service.lock().await;
        self.away.lock().unwrap().push(Absence {
            from: Instant::now(),
            until: None,
        });
        if let Some(mut child) = service.child.take() {
            let pid = child.id().to_string();
            let told = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
            assert!(told.success());
            tokio::task::block_in_place(|| child.wait()).unwrap();
        }
    }

    pub(crate) async fn start(&self) {
        let mut service = self.service.lock().await;
        while !service.try_start().await {
            tokio::time::sleep(START_AGAIN).await;
        }
        let mut door = self.door.lock().unwrap();
        door.address = service.target.address.clone();
        door.life += 1;
        if let Some(absence) = self.away.lock().unwrap().last_mut() {
            absence.until = Some(Instant::now());
        }
    }

    pub(crate) fn door(&self) -> Door {
        self.door.lock().unwrap().clone()
    }

    pub(crate) fn away(&self) -> Vec<Absence> {
        self.away.lock().unwrap().clone()
    }

    pub(crate) fn rescued(&self) -> Vec<(String, i64)> {
        self.rescued.lock().unwrap().clone()
    }
}

/// Connection and spent generation of a rescue file; its first line says them.
fn subject(path: &Path) -> Option<(String, i64)> {
    let content = std::fs::read(path).unwrap();
    let line = content.split(|byte| *byte == b'\n').next()?;
    let head: Value = serde_json::from_slice(line).ok()?;
    Some((
        head["connection"].as_str()?.to_owned(),
        head["generation"].as_i64()?,
    ))
}

/// The platform's id of a seller by position.
pub(crate) fn seller_id(number: usize) -> String {
    format!("seller-{number:06}")
}

/// And back.
pub(crate) fn seller_number(id: &str) -> Option<usize> {
    id.strip_prefix("seller-")?.parse().ok()
}
