//! What differs between the countries of Mercado Pago: currency, documents, payment methods, test cards.
//!
//! Sites, currencies and documents as in Mercado Pago's own overlays; the test cards are the published ones. Fees, limits
//! and installment numbers are the simulator's own round figures: Mercado Pago's change with country, plan and day.

use serde::Serialize;

/// A country of Mercado Pago.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) id: &'static str,
    pub(super) country: &'static str,
    pub(super) currency: &'static str,
    /// Digits after the point that an amount may have.
    pub(super) decimals: u32,
    /// Empty where the site has none (`GET /v1/identification_types` answers 404 then).
    pub(super) documents: &'static [Document],
    pub(super) methods: &'static [Method],
    pub(super) cards: &'static [TestCard],
    /// Whether a payment can be refunded in parts (not offered in Peru).
    pub(super) partial_refunds: bool,
}

/// A kind of identity document, as `GET /v1/identification_types` shows it.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) min_length: usize,
    pub(super) max_length: usize,
}

/// A payment method of a site.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    /// `credit_card`, `debit_card`, `ticket`, `bank_transfer`, `atm` or `account_money`.
    pub(super) kind: &'static str,
    /// Issuer that cards of this method have in the simulator.
    pub(super) issuer: u32,
    /// First digits of its cards, longest match wins; empty for what is not a card.
    pub(super) bins: &'static [&'static str],
    pub(super) card_length: usize,
    pub(super) code_length: usize,
}

impl Method {
    pub(super) fn is_card(&self) -> bool {
        matches!(self.kind, "credit_card" | "debit_card" | "prepaid_card")
    }

    pub(super) fn is_credit(&self) -> bool {
        self.kind == "credit_card"
    }
}

/// A published test card.
#[derive(Debug, Serialize)]
pub(super) struct TestCard {
    pub(super) number: &'static str,
    pub(super) security_code: &'static str,
    pub(super) payment_method_id: &'static str,
}

const fn document(id: &'static str, kind: &'static str, min_length: usize, max_length: usize) -> Document {
    Document {
        id,
        name: id,
        kind,
        min_length,
        max_length,
    }
}

const fn card(id: &'static str, name: &'static str, issuer: u32, bins: &'static [&'static str]) -> Method {
    Method {
        id,
        name,
        kind: "credit_card",
        issuer,
        bins,
        card_length: 16,
        code_length: 3,
    }
}

const fn debit(id: &'static str, name: &'static str, issuer: u32, bins: &'static [&'static str]) -> Method {
    Method {
        id,
        name,
        kind: "debit_card",
        issuer,
        bins,
        card_length: 16,
        code_length: 3,
    }
}

const fn other(id: &'static str, name: &'static str, kind: &'static str) -> Method {
    Method {
        id,
        name,
        kind,
        issuer: 0,
        bins: &[],
        card_length: 0,
        code_length: 0,
    }
}

const fn test_card(
    number: &'static str,
    security_code: &'static str,
    payment_method_id: &'static str,
) -> TestCard {
    TestCard {
        number,
        security_code,
        payment_method_id,
    }
}

const MASTER_BINS: &[&str] = &[
    "51", "52", "53", "54", "55", "50", "22", "23", "24", "25", "26", "27",
];
const VISA: Method = card("visa", "Visa", 25, &["4"]);
const MASTER: Method = card("master", "Mastercard", 24, MASTER_BINS);
const AMEX: Method = Method {
    id: "amex",
    name: "American Express",
    kind: "credit_card",
    issuer: 3,
    bins: &["34", "37"],
    card_length: 15,
    code_length: 4,
};
const ACCOUNT_MONEY: Method = other(
    "account_money",
    "Dinero en mi cuenta de Mercado Pago",
    "account_money",
);

/// All sites.
pub(super) static SITES: [Site; 7] = [
    Site {
        id: "MLA",
        country: "AR",
        currency: "ARS",
        decimals: 2,
        documents: &[
            document("DNI", "number", 7, 8),
            document("CUIL", "number", 11, 11),
            document("CUIT", "number", 11, 11),
        ],
        methods: &[
            VISA,
            MASTER,
            AMEX,
            debit("debvisa", "Visa Débito", 25, &["400276"]),
            debit("debmaster", "Mastercard Débito", 24, &["528733"]),
            other("rapipago", "Rapipago", "ticket"),
            other("pagofacil", "Pago Fácil", "ticket"),
            ACCOUNT_MONEY,
        ],
        cards: &[
            test_card("5031755734530604", "123", "master"),
            test_card("4509953566233704", "123", "visa"),
            test_card("371180303257522", "1234", "amex"),
            test_card("5287338310253304", "123", "debmaster"),
            test_card("4002768694395619", "123", "debvisa"),
        ],
        partial_refunds: true,
    },
    Site {
        id: "MLB",
        country: "BR",
        currency: "BRL",
        decimals: 2,
        documents: &[
            document("CPF", "number", 11, 11),
            document("CNPJ", "number", 14, 14),
        ],
        methods: &[
            VISA,
            MASTER,
            AMEX,
            card("elo", "Elo", 1, &["636368", "438935", "504175", "650901"]),
            debit("debelo", "Elo Débito", 1, &["506776"]),
            other("pix", "PIX", "bank_transfer"),
            other("bolbradesco", "Boleto", "ticket"),
            ACCOUNT_MONEY,
        ],
        cards: &[
            test_card("5031433215406351", "123", "master"),
            test_card("4235647728025682", "123", "visa"),
            test_card("375365153556885", "1234", "amex"),
            test_card("5067766783888311", "123", "debelo"),
        ],
        partial_refunds: true,
    },
    Site {
        id: "MLM",
        country: "MX",
        currency: "MXN",
        decimals: 2,
        documents: &[],
        methods: &[
            VISA,
            MASTER,
            AMEX,
            debit("debvisa", "Visa Débito", 25, &["418914"]),
            debit("debmaster", "Mastercard Débito", 24, &["557905"]),
            other("oxxo", "OXXO", "ticket"),
            other("clabe", "Transferencia SPEI", "bank_transfer"),
            ACCOUNT_MONEY,
        ],
        cards: &[
            test_card("5474925432670366", "123", "master"),
            test_card("4075595716483764", "123", "visa"),
            test_card("371180303257522", "1234", "amex"),
            test_card("5579053461482647", "123", "debmaster"),
            test_card("4189141221267633", "123", "debvisa"),
        ],
        partial_refunds: true,
    },
    Site {
        id: "MLC",
        country: "CL",
        currency: "CLP",
        decimals: 0,
        documents: &[document("RUT", "letter", 7, 20)],
        methods: &[
            VISA,
            MASTER,
            AMEX,
            other("webpay", "RedCompra (Webpay)", "bank_transfer"),
            ACCOUNT_MONEY,
        ],
        cards: &[
            test_card("5416752602582580", "123", "master"),
            test_card("4168818844447115", "123", "visa"),
            test_card("375778174461804", "1234", "amex"),
        ],
        partial_refunds: true,
    },
    Site {
        id: "MCO",
        country: "CO",
        currency: "COP",
        decimals: 2,
        documents: &[
            document("CC", "number", 5, 20),
            document("NIT", "number", 5, 20),
            document("CE", "number", 5, 20),
        ],
        methods: &[
            VISA,
            MASTER,
            AMEX,
            other("efecty", "Efecty", "ticket"),
            other("pse", "PSE", "bank_transfer"),
            ACCOUNT_MONEY,
        ],
        cards: &[
            test_card("5254133674403564", "123", "master"),
            test_card("4013540682746260", "123", "visa"),
            test_card("374378187755283", "1234", "amex"),
        ],
        partial_refunds: true,
    },
    Site {
        id: "MPE",
        country: "PE",
        currency: "PEN",
        decimals: 2,
        documents: &[
            document("DNI", "number", 8, 8),
            document("CE", "letter", 8, 12),
            document("RUC", "number", 11, 11),
        ],
        methods: &[
            VISA,
            MASTER,
            AMEX,
            other("pagoefectivo_atm", "PagoEfectivo", "atm"),
            ACCOUNT_MONEY,
        ],
        cards: &[
            test_card("5031755734530604", "123", "master"),
            test_card("4009175332806176", "123", "visa"),
            test_card("371180303257522", "1234", "amex"),
        ],
        partial_refunds: false,
    },
    Site {
        id: "MLU",
        country: "UY",
        currency: "UYU",
        decimals: 2,
        documents: &[document("CI", "number", 6, 8)],
        methods: &[
            VISA,
            MASTER,
            AMEX,
            other("abitab", "Abitab", "ticket"),
            other("redpagos", "Redpagos", "ticket"),
            ACCOUNT_MONEY,
        ],
        cards: &[
            test_card("5031755734530604", "123", "master"),
            test_card("4509953566233704", "123", "visa"),
            test_card("371180303257522", "1234", "amex"),
        ],
        partial_refunds: true,
    },
];

impl Site {
    /// The site of this id (`MLA`, ...).
    pub(super) fn find(id: &str) -> Option<&'static Self> {
        SITES.iter().find(|site| site.id == id)
    }

    /// The payment method of this id.
    pub(super) fn method(&self, id: &str) -> Option<&'static Method> {
        self.methods.iter().find(|method| method.id == id)
    }

    /// The method whose cards begin like this number: the longest known beginning wins.
    pub(super) fn method_of_card(&self, number: &str) -> Option<&'static Method> {
        let matching = |method: &Method| {
            method
                .bins
                .iter()
                .filter(|bin| number.starts_with(**bin))
                .map(|bin| bin.len())
                .max()
        };
        self.methods
            .iter()
            .filter_map(|method| Some((matching(method)?, method)))
            .max_by_key(|(length, _)| *length)
            .map(|(_, method)| method)
    }

    /// Whether `number` can be a document of `kind` here.
    pub(super) fn accepts_document(&self, kind: &str, number: &str) -> bool {
        // Mexico has no list, yet integrations send RFC and CURP there.
        if self.documents.is_empty() {
            return true;
        }
        self.documents
            .iter()
            .find(|document| document.id == kind)
            .is_some_and(|document| {
                let digits = number.chars().filter(char::is_ascii_alphanumeric).count();
                (document.min_length..=document.max_length).contains(&digits)
                    && (document.kind != "number" || number.chars().all(|c| !c.is_ascii_alphabetic()))
            })
    }
}

/// The check digit of card numbers (ISO/IEC 7812, "Luhn").
pub(super) fn luhn(number: &str) -> bool {
    let mut sum = 0;
    for (index, digit) in number.bytes().rev().enumerate() {
        if !digit.is_ascii_digit() {
            return false;
        }
        let value = u32::from(digit - b'0') * if index % 2 == 1 { 2 } else { 1 };
        sum += if value > 9 { value - 9 } else { value };
    }
    sum % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_card_is_recognised_by_its_first_digits_and_passes_the_check_digit() {
        for site in &SITES {
            for card in site.cards {
                assert!(luhn(card.number), "{} {}", site.id, card.number);
                let method = site.method_of_card(card.number).map(|method| method.id);
                assert_eq!(
                    method,
                    Some(card.payment_method_id),
                    "{} {}",
                    site.id,
                    card.number
                );
            }
        }
    }

    #[test]
    fn documents_are_those_of_the_country() {
        let brazil = Site::find("MLB").unwrap();
        assert!(brazil.accepts_document("CPF", "12345678909"));
        assert!(brazil.accepts_document("CPF", "123.456.789-09"));
        assert!(!brazil.accepts_document("CPF", "123"));
        assert!(!brazil.accepts_document("DNI", "12345678"));
        assert!(!brazil.accepts_document("CPF", "1234567890X"));
    }
}
