//! Connections on their way out and in again, for another installation: tokens sealed by default.
//!
//! A sealed token of an export stands by itself: it carries a data key of its own, wrapped by the operator's key, and opens
//! only where that key is configured and only as the same member of the same seller and application.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::connections::ConnectionRow;
use super::{ConnectionFilter, Page, Store, StoreError};
use crate::domain::connection::Connection;
use crate::domain::ids::{ApplicationId, SellerId};
use crate::domain::secret::{AccessToken, RefreshToken};
use crate::vault::{DataKey, Place, VaultError};

/// What a sealed token of an export begins with; no token of Mercado Pago does.
const SEALED: &str = "sealed.v1.";

/// A connection with both its tokens opened.
#[derive(Debug)]
pub struct ExportedConnection {
    /// The connection.
    pub connection: Connection,
    /// Its access token.
    pub access_token: Option<AccessToken>,
    /// Its refresh token.
    pub refresh_token: Option<RefreshToken>,
}

fn place<'a>(seller: &'a SellerId, member: &'a str, application: &'a ApplicationId) -> Place<'a> {
    Place {
        table: "export",
        row: seller.as_str(),
        column: member,
        application,
    }
}

impl Store {
    /// A page of connections with their tokens.
    pub async fn export_connections(
        &self,
        filter: &ConnectionFilter,
    ) -> Result<Page<ExportedConnection>, StoreError> {
        let page = self.list_rows(filter).await?;
        let export = |row: &ConnectionRow| {
            let connection = row.connection()?;
            let key = row.data_key(&self.vault, &connection.application)?;
            let (access_token, refresh_token) = match &key {
                Some(key) => (
                    row.access_token(key, &connection.application)?,
                    row.refresh_token(key, &connection.application)?,
                ),
                None => (None, None),
            };
            Ok(ExportedConnection {
                connection,
                access_token,
                refresh_token,
            })
        };
        Ok(Page {
            data: page.data.iter().map(export).collect::<Result<_, StoreError>>()?,
            next: page.next,
        })
    }

    /// Seals a token for an export.
    pub fn seal_for_export(
        &self,
        token: &str,
        seller: &SellerId,
        member: &str,
        application: &ApplicationId,
    ) -> String {
        let key = DataKey::generate();
        let wrapped = self.vault.wrap(&key, place(seller, "data_key", application));
        let sealed = key.seal(token.as_bytes(), place(seller, member, application));
        let [wrapped, sealed] = [wrapped, sealed].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        format!("{SEALED}{wrapped}.{sealed}")
    }

    /// Opens a token of an export. None when it is not sealed.
    pub fn open_exported(
        &self,
        text: &str,
        seller: &SellerId,
        member: &str,
        application: &ApplicationId,
    ) -> Option<Result<String, VaultError>> {
        let sealed = text.strip_prefix(SEALED)?;
        let open = || {
            let (wrapped, sealed) = sealed.split_once('.').ok_or(VaultError::Malformed)?;
            let decode = |text| URL_SAFE_NO_PAD.decode(text).map_err(|_| VaultError::Malformed);
            let key = self
                .vault
                .unwrap(&decode(wrapped)?, place(seller, "data_key", application))?;
            let opened = key.open(&decode(sealed)?, place(seller, member, application))?;
            let text = std::str::from_utf8(&opened).map_err(|_| VaultError::Malformed)?;
            Ok(text.to_owned())
        };
        Some(open())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tests::{EmptyDatabase, Engine};

    #[tokio::test]
    async fn a_sealed_token_opens_with_the_same_key_as_the_same_member_of_the_same_seller() {
        let database = EmptyDatabase::on(Engine::Sqlite).unwrap();
        let store = database.migrated().await;
        let application = ApplicationId::default_application();
        let (seller, other): (SellerId, SellerId) = ("s1".parse().unwrap(), "s2".parse().unwrap());
        let sealed = store.seal_for_export("APP_USR-canary", &seller, "access_token", &application);
        assert!(!sealed.contains("canary"));
        let open = |seller, member| {
            store
                .open_exported(&sealed, seller, member, &application)
                .unwrap()
        };
        assert_eq!(open(&seller, "access_token").unwrap(), "APP_USR-canary");
        assert!(open(&other, "access_token").is_err());
        assert!(open(&seller, "refresh_token").is_err());
        assert!(
            store
                .open_exported("APP_USR-1", &seller, "access_token", &application)
                .is_none()
        );
        let cut = &sealed[..sealed.len() - 3];
        assert!(
            store
                .open_exported(cut, &seller, "access_token", &application)
                .unwrap()
                .is_err()
        );
    }
}
