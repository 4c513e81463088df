//! The proxied routes in the OpenAPI document, from the same table that the proxy matches against. What goes in and out of
//! them is Mercado Pago's to describe; here stands what the connector adds: scope, headers, and whether a call may be
//! repeated.

use http::Method;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{HttpMethod, ObjectBuilder, Paths, Required, ResponseBuilder};

use crate::mercadopago::routes::{ROUTES, Replay, Route};

/// The tag of all of them.
pub(super) const TAG: &str = "Calls to Mercado Pago";

/// Adds every proxied route to the document's paths.
pub(super) fn describe(paths: &mut Paths) {
    for route in &ROUTES {
        let path = format!("/proxy/{{seller_id}}{}", named(route.template));
        paths.add_path_operation(path, vec![method(&route.method)], operation(route));
    }
}

/// The template with a name of its own for each parameter.
fn named(template: &str) -> String {
    match template.match_indices("{id}").nth(1) {
        Some((second, _)) => format!(
            "{}{}",
            &template[..second],
            template[second..].replace("{id}", "{child_id}")
        ),
        None => template.to_owned(),
    }
}

/// The methods of the table; there is no other.
fn method(method: &Method) -> HttpMethod {
    match *method {
        Method::POST => HttpMethod::Post,
        Method::PUT => HttpMethod::Put,
        Method::DELETE => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn operation(route: &Route) -> OperationBuilder {
    let repetition = match route.replay {
        Replay::Read => "Repeated by the connector where that helps.",
        Replay::Keyed => {
            "Repeated by the connector with the same `X-Idempotency-Key`; after an unknown outcome (504) repeat it with the \
             `idempotency_key` of the answer."
        }
        Replay::Never => "Never sent again once a byte of it went out.",
    };
    let mut id = format!("proxy_{}", route.method.as_str().to_ascii_lowercase());
    for segment in route.template.split('/').skip(1) {
        id.push('_');
        id.push_str(segment.trim_matches(['{', '}']));
    }
    let mut parameters = vec![in_path(
        "seller_id",
        "The seller; `~` if the bearer token is `<API key>~<seller_id>`, `@self` for the application's own account.",
    )];
    for name in ["id", "child_id"] {
        if named(route.template).contains(&format!("{{{name}}}")) {
            parameters.push(in_path(name, "Mercado Pago's id."));
        }
    }
    if matches!(route.method, Method::POST | Method::PUT) {
        parameters.push(in_header(
            "X-Idempotency-Key",
            "1 to 256 visible characters; made by the connector where it is missing.",
        ));
    }
    parameters.push(in_header(
        "Connector-Timeout",
        "A deadline shorter than `PROXY_TIMEOUT`, like `10s`.",
    ));
    let answer = ResponseBuilder::new().description(
        "Mercado Pago's answer, byte for byte; with `Connector-Error`, an error of the connector in the same shape",
    );
    OperationBuilder::new()
        .tag(TAG)
        .operation_id(Some(id))
        .summary(Some(format!(
            "{} {} at Mercado Pago",
            route.method, route.template
        )))
        .description(Some(repetition))
        .parameters(Some(parameters))
        .response("default", answer)
        .security(SecurityRequirement::new("api_key", [route.scope.as_str()]))
}

fn in_path(name: &str, description: &str) -> Parameter {
    text(name, description)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .build()
}

fn in_header(name: &str, description: &str) -> Parameter {
    text(name, description)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .build()
}

fn text(name: &str, description: &str) -> ParameterBuilder {
    let schema = ObjectBuilder::new().schema_type(Type::String);
    ParameterBuilder::new()
        .name(name)
        .description(Some(description))
        .schema(Some(schema))
}
