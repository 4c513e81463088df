//! The proxied routes of Mercado Pago's API: what may be called, which scope it needs, and whether it may be sent twice.
//!
//! One table; what is not in it is refused (default deny, DESIGN.md section 8). `/oauth/*` and `/v1/card_tokens` are left
//! out on purpose: grants are ours alone, and card data must never pass here.

use std::sync::LazyLock;

use http::Method;

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
    pub class: &'static str,
}

impl Route {
    /// Whether the answer is a payment whose approval or decline is counted: POST and PUT of payments.
    pub fn answers_with_a_payment(&self) -> bool {
        self.class == "payments" && self.method != Method::GET
    }
}

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

use Replay::{Keyed as K, Never as N, Read as R};
use Scope::{
    AccountRead, CustomersRead, CustomersWrite, OrdersRead, OrdersWrite, PaymentsRead, PaymentsWrite,
    PreferencesRead, PreferencesWrite, RefundsWrite, SubscriptionsRead, SubscriptionsWrite,
};

const fn route(
    method: Method,
    template: &'static str,
    scope: Scope,
    replay: Replay,
    class: &'static str,
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
    route(POST,   "/v1/payments",                               PaymentsWrite,      K, "payments"),
    route(GET,    "/v1/payments/search",                        PaymentsRead,       R, "payments"),
    route(GET,    "/v1/payments/{id}",                          PaymentsRead,       R, "payments"),
    route(PUT,    "/v1/payments/{id}",                          PaymentsWrite,      N, "payments"),
    route(PUT,    "/v1/payments/{id}/cancellations",            PaymentsWrite,      N, "payments"),
    route(POST,   "/v1/payments/{id}/refunds",                  RefundsWrite,       K, "refunds"),
    route(GET,    "/v1/payments/{id}/refunds",                  PaymentsRead,       R, "refunds"),
    route(GET,    "/v1/payments/{id}/refunds/{id}",             PaymentsRead,       R, "refunds"),
    route(GET,    "/v1/chargebacks/search",                     PaymentsRead,       R, "chargebacks"),
    route(GET,    "/v1/chargebacks/{id}",                       PaymentsRead,       R, "chargebacks"),
    route(PUT,    "/v1/chargebacks/{id}",                       PaymentsWrite,      N, "chargebacks"),

    route(POST,   "/v1/customers",                              CustomersWrite,     N, "customers"),
    route(GET,    "/v1/customers/search",                       CustomersRead,      R, "customers"),
    route(GET,    "/v1/customers/{id}",                         CustomersRead,      R, "customers"),
    route(PUT,    "/v1/customers/{id}",                         CustomersWrite,     N, "customers"),
    route(DELETE, "/v1/customers/{id}",                         CustomersWrite,     N, "customers"),
    route(DELETE, "/v1/customers/{id}/delete",                  CustomersWrite,     N, "customers"),
    route(POST,   "/v1/customers/{id}/cards",                   CustomersWrite,     N, "cards"),
    route(GET,    "/v1/customers/{id}/cards",                   CustomersRead,      R, "cards"),
    route(GET,    "/v1/customers/{id}/cards/{id}",              CustomersRead,      R, "cards"),
    route(PUT,    "/v1/customers/{id}/cards/{id}",              CustomersWrite,     N, "cards"),
    route(DELETE, "/v1/customers/{id}/cards/{id}",              CustomersWrite,     N, "cards"),
    route(POST,   "/v1/customers/{id}/addresses",               CustomersWrite,     N, "addresses"),
    route(GET,    "/v1/customers/{id}/addresses",               CustomersRead,      R, "addresses"),
    route(GET,    "/v1/customers/{id}/addresses/{id}",          CustomersRead,      R, "addresses"),
    route(PUT,    "/v1/customers/{id}/addresses/{id}",          CustomersWrite,     N, "addresses"),
    route(DELETE, "/v1/customers/{id}/addresses/{id}",          CustomersWrite,     N, "addresses"),

    route(POST,   "/preapproval_plan",                          SubscriptionsWrite, N, "plans"),
    route(GET,    "/preapproval_plan/search",                   SubscriptionsRead,  R, "plans"),
    route(GET,    "/preapproval_plan/{id}",                     SubscriptionsRead,  R, "plans"),
    route(PUT,    "/preapproval_plan/{id}",                     SubscriptionsWrite, N, "plans"),
    route(POST,   "/preapproval",                               SubscriptionsWrite, N, "subscriptions"),
    route(GET,    "/preapproval/search",                        SubscriptionsRead,  R, "subscriptions"),
    route(GET,    "/preapproval/export",                        SubscriptionsRead,  R, "subscriptions"),
    route(GET,    "/preapproval/{id}",                          SubscriptionsRead,  R, "subscriptions"),
    route(PUT,    "/preapproval/{id}",                          SubscriptionsWrite, N, "subscriptions"),
    route(GET,    "/authorized_payments",                       SubscriptionsRead,  R, "authorized_payments"),
    route(GET,    "/authorized_payments/search",                SubscriptionsRead,  R, "authorized_payments"),
    route(GET,    "/authorized_payments/{id}",                  SubscriptionsRead,  R, "authorized_payments"),

    route(POST,   "/v1/orders",                                 OrdersWrite,        K, "orders"),
    route(GET,    "/v1/orders",                                 OrdersRead,         R, "orders"),
    route(GET,    "/v1/orders/{id}",                            OrdersRead,         R, "orders"),
    route(POST,   "/v1/orders/{id}/process",                    OrdersWrite,        K, "orders"),
    route(POST,   "/v1/orders/{id}/cancel",                     OrdersWrite,        K, "orders"),
    route(POST,   "/v1/orders/{id}/capture",                    OrdersWrite,        K, "orders"),
    route(POST,   "/v1/orders/{id}/refund",                     OrdersWrite,        K, "orders"),
    route(POST,   "/v1/orders/{id}/transactions",               OrdersWrite,        K, "orders"),
    route(PUT,    "/v1/orders/{id}/transactions/{id}",          OrdersWrite,        N, "orders"),
    route(DELETE, "/v1/orders/{id}/transactions/{id}",          OrdersWrite,        N, "orders"),

    route(POST,   "/checkout/preferences",                      PreferencesWrite,   N, "preferences"),
    route(GET,    "/checkout/preferences/search",               PreferencesRead,    R, "preferences"),
    route(GET,    "/checkout/preferences/{id}",                 PreferencesRead,    R, "preferences"),
    route(PUT,    "/checkout/preferences/{id}",                 PreferencesWrite,   N, "preferences"),
    route(POST,   "/merchant_orders",                           PreferencesWrite,   N, "merchant_orders"),
    route(GET,    "/merchant_orders/search",                    PreferencesRead,    R, "merchant_orders"),
    route(GET,    "/merchant_orders/{id}",                      PreferencesRead,    R, "merchant_orders"),
    route(PUT,    "/merchant_orders/{id}",                      PreferencesWrite,   N, "merchant_orders"),

    route(GET,    "/users/me",                                  AccountRead,        R, "account"),
    route(GET,    "/v1/payment_methods",                        AccountRead,        R, "catalogue"),
    route(GET,    "/v1/payment_methods/installments",           AccountRead,        R, "catalogue"),
    route(GET,    "/v1/identification_types",                   AccountRead,        R, "catalogue"),
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
