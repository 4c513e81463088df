//! The simulated world: applications, sellers with their books, what was granted, and the clock that all of it runs on.
//!
//! One lock per seller, so that calls for different sellers never wait for each other; no lock is held over an await.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::card_tokens::CardTokens;
use super::customers::Customer;
use super::faults::Faults;
use super::grants::{EndReason, Grants};
use super::input::Amount;
use super::notifications::Outbox;
use super::options::{Client, SandboxOptions};
use super::order::Order;
use super::payment::Payment;
use super::persist::SellerRecord;
use super::recorder::Recorder;
use super::sites::{SITES, Site};
use super::subscription::{AuthorizedPayment, Plan, Subscription};
use crate::domain::clock::{Clock, OffsetClock};
use crate::domain::random::Random;

/// A test seller's account.
#[derive(Debug, Clone, Serialize)]
pub struct TestSeller {
    /// Account id.
    pub user_id: u64,
    /// Name that the consent page shows; also picks the seller in [`super::Sandbox::consent`].
    pub nickname: String,
    /// Address of the account.
    pub email: String,
    /// Country (`MLA`, `MLB`, ...).
    pub site_id: String,
    /// Currency of the country.
    pub currency_id: String,
    /// Key with which a front end makes card tokens for this seller.
    pub public_key: String,
}

/// A test buyer's account: pays with its e-mail address, and is registered in its country.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TestBuyer {
    pub(super) user_id: u64,
    pub(super) email: String,
    pub(super) site_id: &'static str,
}

/// The test buyers.
pub(super) fn test_buyers() -> Vec<TestBuyer> {
    let of_site = |(site, first): (&'static Site, u64)| {
        (first + 1..=first + BUYERS_PER_SITE).map(|user_id| TestBuyer {
            user_id,
            email: format!("test_user_{user_id}@testuser.com"),
            site_id: site.id,
        })
    };
    SITES
        .iter()
        .zip((FIRST_BUYER..).step_by(1000))
        .flat_map(of_site)
        .collect()
}

/// The account behind a test user's e-mail address, and its country, as far as the address tells.
pub(super) fn account_of(email: &str) -> Option<(u64, Option<&'static Site>)> {
    let id = email
        .strip_prefix("test_user_")?
        .strip_suffix("@testuser.com")?
        .parse()
        .ok()?;
    let own =
        (FIRST_SELLER..FIRST_SELLER + 7000).contains(&id) || (FIRST_BUYER..FIRST_BUYER + 7000).contains(&id);
    let index = usize::try_from(id % 1_000_000 / 1000).ok()?;
    Some((id, SITES.get(index).filter(|_| own)))
}

/// What is written down for one account. Everything in it belongs to that account alone.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Books {
    pub(super) balance: Amount,
    pub(super) payments: HashMap<u64, Payment>,
    /// Payments in the order of their creation, for searching and forgetting.
    pub(super) payment_order: VecDeque<u64>,
    /// Idempotency keys of payments, and what each made.
    pub(super) keys: HashMap<String, u64>,
    /// The same keys in the order in which they came.
    pub(super) payment_keys: VecDeque<String>,
    /// Idempotency keys of refunds by payment, and what each made.
    pub(super) refund_keys: HashMap<u64, Vec<(String, u64)>>,
    pub(super) customers: BTreeMap<String, Customer>,
    pub(super) plans: BTreeMap<String, Plan>,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
    pub(super) invoices: BTreeMap<u64, AuthorizedPayment>,
    #[serde(default)]
    pub(super) preferences: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) merchant_orders: BTreeMap<u64, Value>,
    #[serde(default)]
    pub(super) orders: BTreeMap<String, Order>,
    /// Idempotency keys of orders, and what each answered.
    #[serde(default)]
    pub(super) order_keys: HashMap<String, OrderReplay>,
    /// What the clock will bring about, earliest first.
    #[serde(with = "pairs")]
    pub(super) agenda: BTreeMap<(DateTime<Utc>, u64), Due>,
}

/// What an idempotency key of the Orders API stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OrderReplay {
    pub(super) at: DateTime<Utc>,
    pub(super) hash: Vec<u8>,
    pub(super) status: u16,
    pub(super) body: String,
}

/// A map whose keys are no strings, as a list of pairs.
mod pairs {
    use std::collections::BTreeMap;

    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: DeserializeOwned + Ord,
        V: DeserializeOwned,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Something that happens by itself at its time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Due {
    /// An unpaid payment expires.
    Expire(u64),
    /// A subscription charges.
    Charge(String),
    /// A failed charge is tried again.
    Retry(u64),
}

/// An account: a test seller, or the account that owns an application.
#[derive(Debug)]
pub(super) struct Seller {
    pub(super) user_id: u64,
    pub(super) nickname: String,
    pub(super) email: String,
    pub(super) site: &'static Site,
    pub(super) public_key: String,
    /// The key that comes with test credentials.
    pub(super) test_public_key: String,
    /// Whether it can be picked on the consent page.
    pub(super) selectable: bool,
    books: Mutex<Books>,
}

impl Seller {
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The account for the state file.
    pub(super) fn record(&self) -> SellerRecord {
        SellerRecord {
            user_id: self.user_id,
            nickname: self.nickname.clone(),
            site_id: String::from(self.site.id),
            public_key: self.public_key.clone(),
            test_public_key: self.test_public_key.clone(),
            selectable: self.selectable,
            books: self.books().clone(),
        }
    }

    fn profile(&self) -> TestSeller {
        TestSeller {
            user_id: self.user_id,
            nickname: self.nickname.clone(),
            email: self.email.clone(),
            site_id: String::from(self.site.id),
            currency_id: String::from(self.site.currency),
            public_key: self.public_key.clone(),
        }
    }
}

/// Whom a public key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeyOwner {
    Seller(u64),
    Application(String),
}

/// The simulated world.
#[derive(Debug)]
pub(super) struct World {
    pub(super) options: SandboxOptions,
    pub(super) clock: OffsetClock,
    pub(super) random: Random,
    pub(super) grants: Grants,
    pub(super) card_tokens: CardTokens,
    pub(super) faults: Faults,
    pub(super) recorder: Recorder,
    pub(super) outbox: Outbox,
    pub(super) deleted_clients: Mutex<HashSet<String>>,
    sellers: RwLock<BTreeMap<u64, Arc<Seller>>>,
    public_keys: RwLock<HashMap<String, KeyOwner>>,
    pub(super) next_id: AtomicU64,
    /// Whether something happened since the state file was written.
    pub(super) changed: AtomicBool,
}

const SELLERS_PER_SITE: u64 = 3;
const FIRST_SELLER: u64 = 241_000_000;
const BUYERS_PER_SITE: u64 = 2;
const FIRST_BUYER: u64 = 341_000_000;
const FIRST_OWNER: u64 = 120_000_000;
/// Payments, refunds, cards and invoices have ids of eleven digits and more, as today at Mercado Pago.
const FIRST_ID: u64 = 100_000_000_000;

impl World {
    /// A new world with its test sellers.
    pub(super) fn new(options: SandboxOptions) -> Self {
        let world = Self {
            clock: OffsetClock::new(Arc::clone(&options.clock)),
            random: options.random.clone(),
            grants: Grants::default(),
            card_tokens: CardTokens::default(),
            faults: Faults::default(),
            recorder: Recorder::default(),
            outbox: Outbox::default(),
            deleted_clients: Mutex::default(),
            sellers: RwLock::default(),
            public_keys: RwLock::default(),
            next_id: AtomicU64::new(FIRST_ID),
            changed: AtomicBool::new(true),
            options,
        };
        world.add_owners();
        for (site, first) in SITES.iter().zip((FIRST_SELLER..).step_by(1000)) {
            for number in 1..=SELLERS_PER_SITE {
                world.put_seller(first + number, format!("TEST{}{number}", site.id), site, true);
            }
        }
        world
    }

    /// The sandbox's own time.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Moves the clock; what was due meanwhile happens.
    pub(super) fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.settle_all();
        self.outbox.wake();
    }

    /// A seller consented to an application.
    pub(super) fn authorized(&self, seller: &Seller, client_id: &str) {
        self.outbox.link(seller.user_id, client_id);
        self.announce_link(seller, client_id, "application.authorized");
    }

    /// Ends grants of a seller; applications hear of it if they were taken out of the account.
    pub(super) fn end_grants(
        &self,
        seller: &Seller,
        reason: EndReason,
        matches: impl Fn(u64, &str) -> bool,
    ) -> usize {
        let clients = self.grants.clients_of(seller.user_id);
        let ended = self.grants.end(reason, &matches);
        for client in clients.iter().filter(|client| matches(seller.user_id, client)) {
            if reason == EndReason::Deauthorized {
                self.announce_link(seller, client, "application.deauthorized");
            }
            self.outbox.unlink(seller.user_id, client);
        }
        ended
    }

    /// The next id for a payment, refund, card or invoice.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// `N` random bytes in lower-case hex.
    pub(super) fn hex<const N: usize>(&self) -> String {
        self.random
            .bytes::<N>()
            .iter()
            .fold(String::with_capacity(2 * N), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }

    /// `N` random letters and digits.
    pub(super) fn alphanumeric<const N: usize>(&self) -> String {
        const SET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        self.random
            .bytes::<N>()
            .iter()
            .map(|byte| char::from(SET[usize::from(*byte) % SET.len()]))
            .collect()
    }

    /// A registered application.
    pub(super) fn client(&self, client_id: &str) -> Option<&Client> {
        let deleted = self
            .deleted_clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.options
            .clients
            .iter()
            .find(|client| client.client_id == client_id && !deleted.contains(client_id))
    }

    /// The account that owns an application.
    pub(super) fn owner_of(&self, client_id: &str) -> Option<Arc<Seller>> {
        let index = self
            .options
            .clients
            .iter()
            .position(|client| client.client_id == client_id)?;
        self.seller(FIRST_OWNER + 1 + u64::try_from(index).ok()?)
    }

    fn put_seller(
        &self,
        user_id: u64,
        nickname: String,
        site: &'static Site,
        selectable: bool,
    ) -> Arc<Seller> {
        let record = SellerRecord {
            user_id,
            nickname,
            site_id: String::from(site.id),
            public_key: format!("APP_USR-{}", self.random.uuid()),
            test_public_key: format!("TEST-{}", self.random.uuid()),
            selectable,
            books: Books::default(),
        };
        self.restore_seller(record, site)
    }

    /// Enters an account.
    pub(super) fn restore_seller(&self, record: SellerRecord, site: &'static Site) -> Arc<Seller> {
        let seller = Arc::new(Seller {
            user_id: record.user_id,
            nickname: record.nickname,
            email: format!("test_user_{}@testuser.com", record.user_id),
            site,
            public_key: record.public_key,
            test_public_key: record.test_public_key,
            selectable: record.selectable,
            books: Mutex::new(record.books),
        });
        let mut keys = self.keys_mut();
        for key in [&seller.public_key, &seller.test_public_key] {
            keys.insert(key.clone(), KeyOwner::Seller(seller.user_id));
        }
        drop(keys);
        let mut sellers = self.sellers.write().unwrap_or_else(PoisonError::into_inner);
        sellers.insert(seller.user_id, Arc::clone(&seller));
        seller
    }

    /// Makes sure that each application has an account of its own and a public key.
    pub(super) fn add_owners(&self) {
        for (client, user_id) in self.options.clients.iter().zip(FIRST_OWNER + 1..) {
            if self.seller(user_id).is_none() {
                self.put_seller(
                    user_id,
                    format!("OWNER{}", user_id - FIRST_OWNER),
                    &SITES[0],
                    false,
                );
            }
            if self.application_key(&client.client_id).is_none() {
                let key = format!("APP_USR-{}", self.random.uuid());
                self.put_application_key(key, client.client_id.clone());
            }
        }
    }

    /// Forgets all accounts and keys, before those of a state file are entered.
    pub(super) fn forget_accounts(&self) {
        self.sellers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.keys_mut().clear();
    }

    /// Enters the public key of an application.
    pub(super) fn put_application_key(&self, key: String, client_id: String) {
        self.keys_mut().insert(key, KeyOwner::Application(client_id));
    }

    /// Adds test sellers of a site, for load tests.
    pub(super) fn add_sellers(&self, site: &'static Site, count: u64) -> Vec<TestSeller> {
        let first = {
            let sellers = self.sellers.read().unwrap_or_else(PoisonError::into_inner);
            sellers.keys().next_back().copied().unwrap_or(FIRST_SELLER) + 1
        };
        (first..first + count)
            .map(|user_id| {
                self.put_seller(user_id, format!("TEST{user_id}"), site, true)
                    .profile()
            })
            .collect()
    }

    /// The account of this id.
    pub(super) fn seller(&self, user_id: u64) -> Option<Arc<Seller>> {
        self.sellers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&user_id)
            .cloned()
    }

    /// All accounts.
    pub(super) fn all_sellers(&self) -> Vec<Arc<Seller>> {
        self.sellers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Those that can consent.
    pub(super) fn test_sellers(&self) -> Vec<TestSeller> {
        self.all_sellers()
            .iter()
            .filter(|seller| seller.selectable)
            .map(|seller| seller.profile())
            .collect()
    }

    /// A test seller by nickname or account id.
    pub(super) fn find_seller(&self, name: &str) -> Option<Arc<Seller>> {
        let user_id = name.parse::<u64>().ok();
        self.all_sellers()
            .into_iter()
            .find(|seller| seller.selectable && (Some(seller.user_id) == user_id || seller.nickname == name))
    }

    fn keys_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, KeyOwner>> {
        self.public_keys.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom a public key belongs to.
    pub(super) fn key_owner(&self, public_key: &str) -> Option<KeyOwner> {
        self.public_keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(public_key)
            .cloned()
    }

    /// The key with which a front end of this application makes card tokens.
    pub(super) fn application_key(&self, client_id: &str) -> Option<String> {
        let keys = self.public_keys.read().unwrap_or_else(PoisonError::into_inner);
        let owner = KeyOwner::Application(String::from(client_id));
        keys.iter()
            .find(|(_, key_owner)| **key_owner == owner)
            .map(|(key, _)| key.clone())
    }
}
