//! The proxied routes of Mercado Pago's API: what may be called, which scope it needs, and whether it may be sent twice.
//!
//! One table; what is not in it is refused (default deny, DESIGN.md section 8). `/oauth/*` and `/v1/card_tokens` are left
//! out on purpose: grants are ours alone, and card data must never pass here.

use std::sync::LazyLock;

use http::Method;

use crate::domain::connection::text_enum;
use crate::domain::scope::Scope;

/// Whether a request may be sent again after it may have reached Mercado Pago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// R: a read; as often as needed.
    Read,
    /// K: Mercado Pago honours `X-Idempotency-Key`; again with the same key.
    Keyed,
    /// N: never once a byte went out.
    Never,
}

text_enum! {
    /// The name under which calls are counted: few enough for a metric's label.
    RouteClass {
        /// Payments.
        Payments = "payments",
        /// Refunds of payments.
        Refunds = "refunds",
        /// Chargebacks.
        Chargebacks = "chargebacks",
        /// Customers.
        Customers = "customers",
        /// Saved cards of customers.
        Cards = "cards",
        /// Addresses of customers.
        Addresses = "addresses",
        /// Plans of subscriptions.
        Plans = "plans",
        /// Subscriptions.
        Subscriptions = "subscriptions",
        /// Invoices of subscriptions.
        AuthorizedPayments = "authorized_payments",
        /// Orders and their transactions.
        Orders = "orders",
        /// Checkout preferences.
        Preferences = "preferences",
        /// Merchant orders.
        MerchantOrders = "merchant_orders",
        /// The seller's account.
        Account = "account",
        /// Payment methods and identification types.
        Catalogue = "catalogue",
    }
}

/// One proxied route.
#[derive(Debug)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path; `{id}` stands for one segment.
    pub template: &'static str,
    /// What a key needs.
    pub scope: Scope,
    /// Whether it may be sent again.
    pub replay: Replay,
    /// The name under which calls are counted.
    pub class: RouteClass,
}

impl Route {
    /// Whether the answer is a payment whose approval or decline is counted: POST and PUT of payments.
    pub fn answers_with_a_payment(&self) -> bool {
        self.class == Payments && self.method != GET
    }

    /// Whether it makes a payment.
    pub fn makes_a_payment(&self) -> bool {
        self.class == Payments && self.method == POST
    }
}

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

use Replay::{Keyed as K, Never as N, Read as R};
use RouteClass::{
    Account, Addresses, AuthorizedPayments, Cards, Catalogue, Chargebacks, Customers, MerchantOrders, Orders,
    Payments, Plans, Preferences, Refunds, Subscriptions,
};
use Scope::{
    AccountRead, CustomersRead, CustomersWrite, OrdersRead, OrdersWrite, PaymentsRead, PaymentsWrite,
    PreferencesRead, PreferencesWrite, RefundsWrite, SubscriptionsRead, SubscriptionsWrite,
};

const fn route(
    method: Method,
    template: &'static str,
    scope: Scope,
    replay: Replay,
    class: RouteClass,
) -> Route {
    Route {
        method,
        template,
        scope,
        replay,
        class,
    }
}

/// Every route. Within one path the literal segment wins over `{id}`.
#[rustfmt::skip]
pub static ROUTES: [Route; 61] = [
    route(POST,   "/v1/payments",                               PaymentsWrite,      K, Payments),
    route(GET,    "/v1/payments/search",                        PaymentsRead,       R, Payments),
    route(GET,    "/v1/payments/{id}",                          PaymentsRead,       R, Payments),
    route(PUT,    "/v1/payments/{id}",                          PaymentsWrite,      N, Payments),
    route(PUT,    "/v1/payments/{id}/cancellations",            PaymentsWrite,      N, Payments),
    route(POST,   "/v1/payments/{id}/refunds",                  RefundsWrite,       K, Refunds),
    route(GET,    "/v1/payments/{id}/refunds",                  PaymentsRead,       R, Refunds),
    route(GET,    "/v1/payments/{id}/refunds/{id}",             PaymentsRead,       R, Refunds),
    route(GET,    "/v1/chargebacks/search",                     PaymentsRead,       R, Chargebacks),
    route(GET,    "/v1/chargebacks/{id}",                       PaymentsRead,       R, Chargebacks),
    route(PUT,    "/v1/chargebacks/{id}",                       PaymentsWrite,      N, Chargebacks),

    route(POST,   "/v1/customers",                              CustomersWrite,     N, Customers),
    route(GET,    "/v1/customers/search",                       CustomersRead,      R, Customers),
    route(GET,    "/v1/customers/{id}",                         CustomersRead,      R, Customers),
    route(PUT,    "/v1/customers/{id}",                         CustomersWrite,     N, Customers),
    route(DELETE, "/v1/customers/{id}",                         CustomersWrite,     N, Customers),
    route(DELETE, "/v1/customers/{id}/delete",                  CustomersWrite,     N, Customers),
    route(POST,   "/v1/customers/{id}/cards",                   CustomersWrite,     N, Cards),
    route(GET,    "/v1/customers/{id}/cards",                   CustomersRead,      R, Cards),
    route(GET,    "/v1/customers/{id}/cards/{id}",              CustomersRead,      R, Cards),
    route(PUT,    "/v1/customers/{id}/cards/{id}",              CustomersWrite,     N, Cards),
    route(DELETE, "/v1/customers/{id}/cards/{id}",              CustomersWrite,     N, Cards),
    route(POST,   "/v1/customers/{id}/addresses",               CustomersWrite,     N, Addresses),
    route(GET,    "/v1/customers/{id}/addresses",               CustomersRead,      R, Addresses),
    route(GET,    "/v1/customers/{id}/addresses/{id}",          CustomersRead,      R, Addresses),
    route(PUT,    "/v1/customers/{id}/addresses/{id}",          CustomersWrite,     N, Addresses),
    route(DELETE, "/v1/customers/{id}/addresses/{id}",          CustomersWrite,     N, Addresses),

    route(POST,   "/preapproval_plan",                          SubscriptionsWrite, N, Plans),
    route(GET,    "/preapproval_plan/search",                   SubscriptionsRead,  R, Plans),
    route(GET,    "/preapproval_plan/{id}",                     SubscriptionsRead,  R, Plans),
    route(PUT,    "/preapproval_plan/{id}",                     SubscriptionsWrite, N, Plans),
    route(POST,   "/preapproval",                               SubscriptionsWrite, N, Subscriptions),
    route(GET,    "/preapproval/search",                        SubscriptionsRead,  R, Subscriptions),
    route(GET,    "/preapproval/export",                        SubscriptionsRead,  R, Subscriptions),
    route(GET,    "/preapproval/{id}",                          SubscriptionsRead,  R, Subscriptions),
    route(PUT,    "/preapproval/{id}",                          SubscriptionsWrite, N, Subscriptions),
    route(GET,    "/authorized_payments",                       SubscriptionsRead,  R, AuthorizedPayments),
    route(GET,    "/authorized_payments/search",                SubscriptionsRead,  R, AuthorizedPayments),
    route(GET,    "/authorized_payments/{id}",                  SubscriptionsRead,  R, AuthorizedPayments),

    route(POST,   "/v1/orders",                                 OrdersWrite,        K, Orders),
    route(GET,    "/v1/orders",                                 OrdersRead,         R, Orders),
    route(GET,    "/v1/orders/{id}",                            OrdersRead,         R, Orders),
    route(POST,   "/v1/orders/{id}/process",                    OrdersWrite,        K, Orders),
    route(POST,   "/v1/orders/{id}/cancel",                     OrdersWrite,        K, Orders),
    route(POST,   "/v1/orders/{id}/capture",                    OrdersWrite,        K, Orders),
    route(POST,   "/v1/orders/{id}/refund",                     OrdersWrite,        K, Orders),
    route(POST,   "/v1/orders/{id}/transactions",               OrdersWrite,        K, Orders),
    route(PUT,    "/v1/orders/{id}/transactions/{id}",          OrdersWrite,        N, Orders),
    route(DELETE, "/v1/orders/{id}/transactions/{id}",          OrdersWrite,        N, Orders),

    route(POST,   "/checkout/preferences",                      PreferencesWrite,   N, Preferences),
    route(GET,    "/checkout/preferences/search",               PreferencesRead,    R, Preferences),
    route(GET,    "/checkout/preferences/{id}",                 PreferencesRead,    R, Preferences),
    route(PUT,    "/checkout/preferences/{id}",                 PreferencesWrite,   N, Preferences),
    route(POST,   "/merchant_orders",                           PreferencesWrite,   N, MerchantOrders),
    route(GET,    "/merchant_orders/search",                    PreferencesRead,    R, MerchantOrders),
    route(GET,    "/merchant_orders/{id}",                      PreferencesRead,    R, MerchantOrders),
    route(PUT,    "/merchant_orders/{id}",                      PreferencesWrite,   N, MerchantOrders),

    route(GET,    "/users/me",                                  AccountRead,        R, Account),
    route(GET,    "/v1/payment_methods",                        AccountRead,        R, Catalogue),
    route(GET,    "/v1/payment_methods/installments",           AccountRead,        R, Catalogue),
    route(GET,    "/v1/identification_types",                   AccountRead,        R, Catalogue),
];

/// What a method and a path are in the table.
#[derive(Debug, Clone, Copy)]
pub enum Match {
    /// A route.
    Route(&'static Route),
    /// A path of the table, with a method that it has not.
    OtherMethod,
    /// No path of the table.
    Unknown,
}

/// Looks a request up. `path` is as it will be sent, without query; one trailing slash is accepted. Costs one step per
/// segment, however many routes there are.
pub fn match_route(method: &Method, path: &str) -> Match {
    let Some(path) = path.strip_prefix('/') else {
        return Match::Unknown;
    };
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut node = &*TREE;
    for segment in path.split('/') {
        match node.step(segment) {
            Some(next) => node = next,
            None => return Match::Unknown,
        }
    }
    match node.routes.iter().find(|route| route.method == *method) {
        Some(route) => Match::Route(route),
        None if node.routes.is_empty() => Match::Unknown,
        None => Match::OtherMethod,
    }
}

/// The table as a tree of segments, built once.
static TREE: LazyLock<Node> = LazyLock::new(|| {
    let mut root = Node::default();
    for route in &ROUTES {
        let mut node = &mut root;
        for segment in route.template.split('/').skip(1) {
            node = node.grow(segment);
        }
        node.routes.push(route);
    }
    root
});

#[derive(Debug, Default)]
struct Node {
    literals: Vec<(&'static str, Node)>,
    any: Option<Box<Node>>,
    routes: Vec<&'static Route>,
}

impl Node {
    fn grow(&mut self, segment: &'static str) -> &mut Self {
        if segment == "{id}" {
            return self.any.get_or_insert_default();
        }
        let index = self
            .literals
            .iter()
            .position(|(literal, _)| *literal == segment)
            .unwrap_or_else(|| {
                self.literals.push((segment, Self::default()));
                self.literals.len() - 1
            });
        &mut self.literals[index].1
    }

    fn step(&self, segment: &str) -> Option<&Self> {
        let literal = self.literals.iter().find(|(literal, _)| *literal == segment);
        match literal {
            Some((_, node)) => Some(node),
            None if segment.is_empty() => None,
            None => self.any.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &Method, path: &str) -> Option<&'static Route> {
        match match_route(method, path) {
            Match::Route(route) => Some(route),
            Match::OtherMethod | Match::Unknown => None,
        }
    }

    #[test]
    fn every_route_is_found_by_its_own_path_with_and_without_a_trailing_slash() {
        for route in &ROUTES {
            let path = route.template.replace("{id}", "123-AbC");
            for path in [path.clone(), format!("{path}/")] {
                let hit = found(&route.method, &path).unwrap_or_else(|| panic!("{} {path}", route.method));
                assert!(
                    std::ptr::eq(hit, route),
                    "{} {path} gave {}",
                    route.method,
                    hit.template
                );
            }
        }
    }

    #[test]
    fn no_route_stands_twice_and_each_reads_or_writes_by_its_method() {
        for (index, one) in ROUTES.iter().enumerate() {
            let same = |other: &&Route| other.method == one.method && other.template == one.template;
            assert_eq!(
                ROUTES.iter().position(|other| same(&other)),
                Some(index),
                "{}",
                one.template
            );
            assert_eq!(one.method == GET, one.replay == Replay::Read, "{}", one.template);
            assert_eq!(
                one.method == GET,
                one.scope.as_str().ends_with(":read"),
                "{}",
                one.template
            );
            assert!(one.scope.is_proxied());
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        for path in [
            "/oauth/token",
            "/v1/card_tokens",
            "/v1/card_tokens/1",
            "/",
            "",
            "/v1",
            "/v1/payments//",
            "//v1/payments",
            "/v1/payments/1/2",
            "/v1/Payments",
            "/v1/advanced_payments",
            "/users/1",
            "v1/payments",
            "/v1/payments/1/refunds//",
        ] {
            assert!(matches!(match_route(&GET, path), Match::Unknown), "{path}");
            assert!(matches!(match_route(&POST, path), Match::Unknown), "{path}");
        }
        assert!(matches!(match_route(&GET, "/v1/payments"), Match::OtherMethod));
        assert!(matches!(
            match_route(&DELETE, "/v1/payments/1"),
            Match::OtherMethod
        ));
        assert!(matches!(
            match_route(&Method::PATCH, "/users/me"),
            Match::OtherMethod
        ));
        assert!(matches!(
            match_route(&Method::HEAD, "/users/me"),
            Match::OtherMethod
        ));
    }

    #[test]
    fn only_written_payments_are_read_for_declines() {
        let read: Vec<_> = ROUTES
            .iter()
            .filter(|route| route.answers_with_a_payment())
            .map(|route| format!("{} {}", route.method, route.template))
            .collect();
        assert_eq!(
            read,
            [
                "POST /v1/payments",
                "PUT /v1/payments/{id}",
                "PUT /v1/payments/{id}/cancellations"
            ]
        );
    }

    #[test]
    fn keyed_are_the_routes_that_honour_an_idempotency_key() {
        let keyed: Vec<_> = ROUTES
            .iter()
            .filter(|route| route.replay == Replay::Keyed)
            .map(|route| route.template)
            .collect();
        assert_eq!(
            keyed,
            [
                "/v1/payments",
                "/v1/payments/{id}/refunds",
                "/v1/orders",
                "/v1/orders/{id}/process",
                "/v1/orders/{id}/cancel",
                "/v1/orders/{id}/capture",
                "/v1/orders/{id}/refund",
                "/v1/orders/{id}/transactions",
            ]
        );
    }
}
