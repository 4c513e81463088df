//! Rescue files: a token answer is on disk before anything parses it, so neither a crash nor a parser's error nor a store
//! that is down can lose what Mercado Pago gives only once (DESIGN.md section 7).
//!
//! A file is created, sized and synced before the request is sent: a full or read-only disk shows before a token is spent.
//! The answer in it is sealed with the connection's data key, so ending the connection makes it unreadable. The file goes
//! when the store has committed what the answer brought.
//!
//! Layout: one line of JSON (whose answer it is), eight bytes with the length of the sealed answer (zero until there is
//! one), the sealed answer, zeros. The folder belongs to one replica and survives the process.
//!
//! So the folder also tells for certain that a process is dead: each writes its id into the file `replica` and holds a lock
//! on it until the system takes the lock away with the process. Whoever gets the lock succeeds the process whose id it finds.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::domain::ids::{ApplicationId, AuthorizationRequestId, ConnectionId, RefreshAttemptId, ReplicaId};
use crate::mercadopago::token_endpoint::{KeepAnswer, Keeping, RawAnswer};
use crate::vault::{DataKey, Place, VaultError};

/// Room for the longest answer that is read (64 KiB) with envelope and header.
const SIZE: u64 = 68 * 1024;
const SUFFIX: &str = "rescue";
/// The file with the id of the process that has the folder.
const REPLICA_FILE: &str = "replica";

/// Whose answer a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Subject {
    /// The exchange of an authorization code.
    Exchange {
        /// The application's slug.
        application: String,
        /// The authorization request that was consumed for it.
        authorization_request: String,
    },
    /// The spending of a refresh token.
    Refresh {
        /// The application's slug.
        application: String,
        /// The connection.
        connection: String,
        /// The attempt.
        attempt: String,
        /// The generation that was spent.
        generation: i64,
    },
}

impl Subject {
    /// Of an exchange.
    pub fn exchange(application: &ApplicationId, request: &AuthorizationRequestId) -> Self {
        Self::Exchange {
            application: application.to_string(),
            authorization_request: request.to_string(),
        }
    }

    /// Of a refresh.
    pub fn refresh(
        application: &ApplicationId,
        connection: &ConnectionId,
        attempt: &RefreshAttemptId,
        generation: i64,
    ) -> Self {
        Self::Refresh {
            application: application.to_string(),
            connection: connection.to_string(),
            attempt: attempt.to_string(),
            generation,
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Exchange {
                authorization_request,
                ..
            } => authorization_request,
            Self::Refresh { attempt, .. } => attempt,
        }
    }
}

/// The folder of rescue files.
#[derive(Debug, Clone)]
pub struct RescueDir {
    path: PathBuf,
    /// Files of requests that are under way in this process.
    under_way: Arc<Mutex<HashSet<PathBuf>>>,
    /// The locked file of [`RescueDir::take_over`], kept open: closing it would give the lock away.
    taken: Arc<Mutex<Option<File>>>,
}

impl RescueDir {
    /// Opens the folder, creating it where it is missing, for this user only.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)?;
        Ok(Self {
            path: path.to_owned(),
            under_way: Arc::default(),
            taken: Arc::default(),
        })
    }

    /// Takes the folder for this process until it ends. Gives the process that had it before and is dead for certain; none if
    /// there was none, or if it still runs.
    pub async fn take_over(&self, replica: &ReplicaId) -> io::Result<Option<ReplicaId>> {
        let (path, replica) = (self.path.join(REPLICA_FILE), replica.clone());
        let Some((file, before)) = blocking(move || take_file(&path, &replica)).await? else {
            return Ok(None);
        };
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(before)
    }

    /// Creates the file for an answer that is about to be asked for. After this there is room for it on the disk.
    pub async fn create(
        &self,
        subject: Subject,
        key: DataKey,
        application: ApplicationId,
    ) -> io::Result<RescueFile> {
        let path = self.path.join(format!("{}.{SUFFIX}", subject.id()));
        self.mark(&path, true);
        let guard = UnderWay {
            dir: self.clone(),
            path: path.clone(),
        };
        let id = subject.id().to_owned();
        let (file, offset) = blocking(move || create_file(&path, &subject)).await?;
        Ok(RescueFile {
            file: Arc::new(file),
            offset,
            id,
            key,
            application,
            guard,
        })
    }

    /// Files that no request of this process is working on: what a process left that died, or what could not be parsed.
    pub async fn list_left(&self) -> io::Result<Vec<LeftFile>> {
        let dir = self.clone();
        blocking(move || {
            let mut left = Vec::new();
            for entry in std::fs::read_dir(&dir.path)? {
                let path = entry?.path();
                let is_ours = path.extension().is_some_and(|suffix| suffix == SUFFIX);
                if is_ours && !dir.lock().contains(&path) {
                    left.push(LeftFile {
                        content: read_file(&path)?,
                        path,
                    });
                }
            }
            Ok(left)
        })
        .await
    }

    fn mark(&self, path: &Path, under_way: bool) {
        let mut set = self.lock();
        if under_way {
            set.insert(path.to_owned());
        } else {
            set.remove(path);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct UnderWay {
    dir: RescueDir,
    path: PathBuf,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.dir.mark(&self.path, false);
    }
}

/// The rescue file of one request. Dropping it leaves the file where it is.
#[derive(Debug)]
pub struct RescueFile {
    file: Arc<File>,
    offset: u64,
    id: String,
    key: DataKey,
    application: ApplicationId,
    guard: UnderWay,
}

impl RescueFile {
    /// Removes the file: what it held is committed, or it holds nothing that matters.
    pub async fn remove(self) {
        remove_file(self.guard.path.clone()).await;
    }
}

impl KeepAnswer for RescueFile {
    fn keep<'a>(&'a self, answer: &'a RawAnswer) -> Keeping<'a> {
        let sealed = self
            .key
            .seal(&answer.to_bytes(), place(&self.id, &self.application));
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        Box::pin(async move {
            if let Err(error) = blocking(move || write_answer(&file, offset, &sealed)).await {
                tracing::error!(%error, file = %self.guard.path.display(), "a token answer could not be written to its rescue file");
            }
        })
    }
}

/// A file that was left over.
#[derive(Debug)]
pub struct LeftFile {
    path: PathBuf,
    content: Option<(Subject, Vec<u8>)>,
}

impl LeftFile {
    /// Whose answer it holds; none if the file was not finished.
    pub fn subject(&self) -> Option<&Subject> {
        self.content.as_ref().map(|(subject, _)| subject)
    }

    /// The answer, if one had come; opened with the data key that it was sealed with.
    pub fn open(&self, key: &DataKey, application: &ApplicationId) -> Result<Option<RawAnswer>, VaultError> {
        let Some((subject, sealed)) = self.content.as_ref().filter(|(_, sealed)| !sealed.is_empty()) else {
            return Ok(None);
        };
        let bytes = key.open(sealed, place(subject.id(), application))?;
        RawAnswer::from_bytes(&bytes)
            .map(Some)
            .map_err(|_| VaultError::Malformed)
    }

    /// Name of the file, for logs.
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// Removes the file.
    pub async fn remove(self) {
        remove_file(self.path).await;
    }
}

fn place<'a>(id: &'a str, application: &'a ApplicationId) -> Place<'a> {
    Place {
        table: "rescue",
        row: id,
        column: "answer",
        application,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

async fn remove_file(path: PathBuf) {
    let shown = path.display().to_string();
    if let Err(error) = blocking(move || std::fs::remove_file(path)).await {
        tracing::error!(%error, file = %shown, "a rescue file could not be removed");
    }
}

/// Writes header and zeros, and syncs file and folder. Returns where the length of the answer stands.
fn create_file(path: &Path, subject: &Subject) -> io::Result<(File, u64)> {
    let mut header = serde_json::to_vec(subject)?;
    header.push(b'\n');
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let offset = header.len() as u64;
    header.resize(usize::try_from(SIZE).unwrap_or(header.len()), 0);
    file.write_all(&header)?;
    file.sync_all()?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok((file, offset))
}

/// Writes length and sealed answer at once, so that whoever is killed leaves either or nothing, and syncs. What a power cut
/// tears does not open.
fn write_answer(mut file: &File, offset: u64, sealed: &[u8]) -> io::Result<()> {
    let mut bytes = (sealed.len() as u64).to_be_bytes().to_vec();
    bytes.extend(sealed);
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(&bytes)?;
    file.sync_data()
}

/// Locks the file, reads who had it, and writes who has it now. None if somebody else holds the lock.
fn take_file(path: &Path, replica: &ReplicaId) -> io::Result<Option<(File, Option<ReplicaId>)>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut before = String::new();
    (&file).take(SIZE).read_to_string(&mut before)?;
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{replica}")?;
    Ok(Some((file, before.trim_end().parse().ok())))
}

fn read_file(path: &Path) -> io::Result<Option<(Subject, Vec<u8>)>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(2 * SIZE).read_to_end(&mut bytes)?;
    Ok(parse_file(&bytes))
}

fn parse_file(bytes: &[u8]) -> Option<(Subject, Vec<u8>)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let subject = serde_json::from_slice(&bytes[..end]).ok()?;
    let (length, rest) = bytes[end + 1..].split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    Some((subject, rest.get(..length)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use zeroize::Zeroizing;

    use super::*;
    use crate::domain::random::Random;

    fn answer() -> RawAnswer {
        RawAnswer {
            status: 200,
            body: Zeroizing::new(br#"{"access_token":"APP_USR-canary"}"#.to_vec()),
            received_at: DateTime::UNIX_EPOCH,
            retry_after: None,
        }
    }

    fn subject() -> Subject {
        let id = RefreshAttemptId::new(DateTime::UNIX_EPOCH, &Random::system());
        let connection = ConnectionId::new(DateTime::UNIX_EPOCH, &Random::system());
        Subject::refresh(&ApplicationId::default_application(), &connection, &id, 3)
    }

    #[tokio::test]
    async fn an_answer_is_there_after_the_process_is_gone_sealed_and_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let (key, application) = (DataKey::generate(), ApplicationId::default_application());
        let subject = subject();
        let dir = RescueDir::open(&folder.path().join("a/b")).unwrap();
        let file = dir
            .create(subject.clone(), key.clone(), application.clone())
            .await
            .unwrap();
        assert!(
            dir.list_left().await.unwrap().is_empty(),
            "a file that is under way is nobody else's"
        );
        file.keep(&answer()).await;
        drop(file);

        let left = RescueDir::open(&folder.path().join("a/b"))
            .unwrap()
            .list_left()
            .await
            .unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].subject(), Some(&subject));
        let opened = left[0].open(&key, &application).unwrap().unwrap();
        assert_eq!(*opened.body, *answer().body);
        assert!(left[0].open(&DataKey::generate(), &application).is_err());
        let bytes = std::fs::read(&left[0].path).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(
                std::fs::metadata(&left[0].path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }

    #[tokio::test]
    async fn a_file_without_a_complete_answer_holds_none() {
        let folder = tempfile::tempdir().unwrap();
        let (key, application) = (DataKey::generate(), ApplicationId::default_application());
        let dir = RescueDir::open(folder.path()).unwrap();
        drop(
            dir.create(subject(), key.clone(), application.clone())
                .await
                .unwrap(),
        );
        std::fs::write(folder.path().join("torn.rescue"), b"{\"kind\":").unwrap();
        for left in dir.list_left().await.unwrap() {
            assert!(left.open(&key, &application).unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn an_answer_that_a_power_cut_tore_does_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let (key, application) = (DataKey::generate(), ApplicationId::default_application());
        let dir = RescueDir::open(folder.path()).unwrap();
        let file = dir
            .create(subject(), key.clone(), application.clone())
            .await
            .unwrap();
        file.keep(&answer()).await;
        let path = file.guard.path.clone();
        drop(file);
        // Its length and its first bytes are on the disk, the rest of it is not.
        let mut bytes = std::fs::read(&path).unwrap();
        let begin = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1 + 8 + 16;
        bytes[begin..].fill(0);
        std::fs::write(&path, bytes).unwrap();
        let left = dir.list_left().await.unwrap();
        assert!(left[0].open(&key, &application).is_err());
    }

    #[tokio::test]
    async fn the_folder_tells_which_process_is_dead_and_never_names_one_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, third] =
            [(); 3].map(|()| ReplicaId::new(DateTime::UNIX_EPOCH, &Random::system()));
        let open = || RescueDir::open(folder.path()).unwrap();
        let (one, other) = (open(), open());
        assert_eq!(one.take_over(&first).await.unwrap(), None);
        assert_eq!(
            other.take_over(&second).await.unwrap(),
            None,
            "the first still runs"
        );
        drop(one);
        assert_eq!(other.take_over(&second).await.unwrap(), Some(first));
        drop(other);
        let last = open();
        assert_eq!(last.take_over(&third).await.unwrap(), Some(second));
        assert!(last.list_left().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_room_for_an_answer_is_taken_before_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let dir = RescueDir::open(folder.path()).unwrap();
        let file = dir
            .create(
                subject(),
                DataKey::generate(),
                ApplicationId::default_application(),
            )
            .await
            .unwrap();
        assert_eq!(std::fs::metadata(&file.guard.path).unwrap().len(), SIZE);
        file.remove().await;
        assert!(dir.list_left().await.unwrap().is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
