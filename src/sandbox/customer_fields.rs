//! What a customer's fields may hold, each wrong one with its own code (100-118 and 126-128 of Mercado Pago's list).

use chrono::DateTime;
use serde_json::value::RawValue;

use super::answer::Refusal;
use super::caller::Caller;
use super::customers::{Address, Customer, Document, Phone};
use super::input::{Fields, WrongType};
use super::sites::Site;

/// Longest text of a field.
const MAX_TEXT: usize = 255;

/// The fields that a request sets.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) email: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    phone: Option<Phone>,
    identification: Option<Document>,
    address: Option<Address>,
    default_address: Option<String>,
    default_card: Option<String>,
    description: Option<String>,
    date_registered: Option<String>,
    metadata: Option<Box<RawValue>>,
}

impl Changes {
    /// Reads and checks all fields that are there.
    pub(super) fn read(fields: &Fields<'_>, site: &Site) -> Result<Self, Refusal> {
        let identification = member(fields, "identification")?
            .map(|document| identification(&document, site))
            .transpose()?;
        let date_registered = text(
            fields,
            "date_registered",
            115,
            "the date_registered format is invalid.",
        )?;
        if date_registered
            .as_ref()
            .is_some_and(|date| DateTime::parse_from_rfc3339(date).is_err())
        {
            return Err(Refusal::customer(115, "the date_registered format is invalid."));
        }
        let email = text(fields, "email", 106, "the email format is invalid.")?;
        if email.as_ref().is_some_and(|email| !is_email(email)) {
            return Err(Refusal::customer(106, "the email format is invalid."));
        }
        Ok(Self {
            email,
            first_name: text(fields, "first_name", 107, "the first_name is invalid.")?,
            last_name: text(fields, "last_name", 108, "the last_name is invalid.")?,
            phone: member(fields, "phone")?
                .map(|phone| read_phone(&phone))
                .transpose()?,
            identification,
            address: member(fields, "address")?
                .map(|address| read_address(&address))
                .transpose()?,
            default_address: text(fields, "default_address", 125, "invalid parameters.")?,
            default_card: either(fields, "default_card", 125, "invalid parameters.")?,
            description: text(fields, "description", 116, "the description is invalid.")?,
            date_registered,
            metadata: fields
                .echo("metadata")
                .map_err(|_| Refusal::customer(117, "the metadata is invalid."))?,
        })
    }

    /// The e-mail that a new customer must have.
    pub(super) fn new_email(&self, fields: &Fields<'_>, caller: &Caller) -> Result<String, Refusal> {
        let email = self
            .email
            .clone()
            .or_else(|| fields.text("email").ok().flatten())
            .ok_or_else(|| Refusal::customer(106, "the email format is invalid."))?;
        if !caller.access.live_mode && !is_test_payer(&email) {
            return Err(Refusal::customer(
                128,
                "the email format is invalid. Use 'test_payer_[0-9]{1,10}@testuser.com'.",
            ));
        }
        if email == caller.seller.email {
            return Err(Refusal::customer(150, "invalid users involved."));
        }
        Ok(email)
    }

    /// Writes the fields over the customer's.
    pub(super) fn apply(self, customer: &mut Customer) -> Result<(), Refusal> {
        if let Some(card) = self.default_card {
            // The documents' own sample clears it with this word.
            if card == "None" {
                customer.default_card = None;
            } else if customer.cards.iter().any(|known| known.id == card) {
                customer.default_card = Some(card);
            } else {
                return Err(Refusal::customer(120, "card not found."));
            }
        }
        let put = |place: &mut Option<String>, value: Option<String>| {
            if value.is_some() {
                *place = value;
            }
        };
        put(&mut customer.first_name, self.first_name);
        put(&mut customer.last_name, self.last_name);
        put(&mut customer.default_address, self.default_address);
        put(&mut customer.description, self.description);
        put(&mut customer.date_registered, self.date_registered);
        if let Some(phone) = self.phone {
            customer.phone = phone;
        }
        if let Some(identification) = self.identification {
            customer.identification = identification;
        }
        if let Some(address) = self.address {
            let id = customer.address.id.take().or(address.id);
            customer.address = Address { id, ..address };
        }
        if let Some(metadata) = self.metadata {
            customer.metadata = metadata;
        }
        Ok(())
    }
}

/// Whether a text can be an e-mail address.
pub(super) fn is_email(text: &str) -> bool {
    text.len() < 254
        && text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && domain.contains('.')
                && !domain.starts_with('.')
                && !domain.ends_with('.')
                && !text.contains(|c: char| c.is_whitespace() || c.is_control())
                && !domain.contains('@')
        })
}

/// The addresses that customers of test credentials have.
fn is_test_payer(email: &str) -> bool {
    email
        .strip_prefix("test_payer_")
        .and_then(|rest| rest.strip_suffix("@testuser.com"))
        .is_some_and(|n| (1..=10).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
}

fn member<'a>(fields: &Fields<'a>, name: &str) -> Result<Option<Fields<'a>>, Refusal> {
    fields
        .object(name)
        .map_err(|_| Refusal::customer(103, "parameter must be an object"))
}

fn checked(
    value: Result<Option<String>, WrongType>,
    code: u32,
    description: &str,
) -> Result<Option<String>, Refusal> {
    let value = value.map_err(|_| Refusal::customer(code, description))?;
    if value
        .as_ref()
        .is_some_and(|value| value.chars().count() > MAX_TEXT)
    {
        return Err(Refusal::customer(104, "parameter length is too large."));
    }
    Ok(value)
}

fn text(fields: &Fields<'_>, name: &str, code: u32, description: &str) -> Result<Option<String>, Refusal> {
    checked(fields.text(name), code, description)
}

fn either(fields: &Fields<'_>, name: &str, code: u32, description: &str) -> Result<Option<String>, Refusal> {
    checked(fields.text_or_number(name), code, description)
}

fn identification(fields: &Fields<'_>, site: &Site) -> Result<Document, Refusal> {
    let kind = text(fields, "type", 111, "the identification.type is invalid.")?;
    let number = either(fields, "number", 112, "the identification.number is invalid.")?;
    if let Some(kind) = &kind {
        if !site.documents.is_empty() && !site.documents.iter().any(|document| document.id == kind) {
            return Err(Refusal::customer(111, "the identification.type is invalid."));
        }
        if number
            .as_ref()
            .is_some_and(|number| !site.accepts_document(kind, number))
        {
            return Err(Refusal::customer(112, "the identification.number is invalid."));
        }
    }
    Ok(Document { number, kind })
}

fn read_phone(fields: &Fields<'_>) -> Result<Phone, Refusal> {
    Ok(Phone {
        area_code: either(fields, "area_code", 109, "the phone.area_code is invalid.")?,
        number: either(fields, "number", 110, "the phone.number is invalid.")?,
    })
}

/// Reads an address of a customer.
pub(super) fn read_address(fields: &Fields<'_>) -> Result<Address, Refusal> {
    Ok(Address {
        id: text(fields, "id", 125, "invalid parameters.")?,
        zip_code: either(fields, "zip_code", 113, "the address.zip_code is invalid.")?,
        street_name: text(fields, "street_name", 114, "the address.street_name is invalid.")?,
        street_number: either(fields, "street_number", 125, "invalid parameters.")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e_mail_addresses_are_told_from_other_text() {
        for good in ["test@test.com", "a.b+c@d.co"] {
            assert!(is_email(good), "{good}");
        }
        for wrong in ["", "a", "@b.c", "a@b", "a@.c", "a@b.", "a b@c.d", "a@b@c.d"] {
            assert!(!is_email(wrong), "{wrong}");
        }
        assert!(is_test_payer("test_payer_1234567890@testuser.com"));
        assert!(!is_test_payer("test_payer_12345678901@testuser.com"));
    }
}
