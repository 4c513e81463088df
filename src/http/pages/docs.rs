//! The API reference as a page: the OpenAPI document, read and laid out here, with nothing loaded from elsewhere.

use askama::Template;
use serde_json::Value;

use crate::http::branding::Chrome;

/// A piece of a text: words, or code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) is_code: bool,
    pub(crate) text: String,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) operations: Vec<Operation>,
}

#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) summary: String,
    pub(crate) description: Vec<Piece>,
    pub(crate) scope: Option<String>,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Option<String>,
    pub(crate) answers: Vec<Answer>,
}

#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) location: String,
    pub(crate) kind: String,
    pub(crate) required: bool,
    pub(crate) description: Vec<Piece>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: String,
    pub(crate) description: Vec<Piece>,
    pub(crate) schema: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) name: String,
    pub(crate) description: Vec<Piece>,
    pub(crate) members: Vec<Member>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) required: bool,
    pub(crate) description: Vec<Piece>,
}

#[derive(Debug, Template)]
#[template(path = "docs.html")]
pub(crate) struct Docs {
    chrome: Chrome,
    introduction: Vec<Piece>,
    groups: Vec<Group>,
    schemas: Vec<Schema>,
}

impl Docs {
    /// Lays out an OpenAPI document.
    pub(crate) fn new(chrome: Chrome, document: &Value) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for (path, methods) in entries(&document["paths"]) {
            for (method, operation) in entries(methods) {
                let group = text(&operation["tags"][0]);
                let operation = read_operation(path, method, operation);
                match groups.iter_mut().find(|known| known.name == group) {
                    Some(known) => known.operations.push(operation),
                    None => groups.push(Group {
                        name: group,
                        operations: vec![operation],
                    }),
                }
            }
        }
        let tags: Vec<_> = document["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|tag| text(&tag["name"]))
            .collect();
        groups.sort_by_key(|group| tags.iter().position(|tag| *tag == group.name));
        Self {
            chrome,
            introduction: prose(&document["info"]["description"]),
            groups,
            schemas: entries(&document["components"]["schemas"])
                .map(|(name, schema)| read_schema(name, schema))
                .collect(),
        }
    }
}

fn read_operation(path: &str, method: &str, operation: &Value) -> Operation {
    let parameters = operation["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|parameter| Parameter {
            name: text(&parameter["name"]),
            location: text(&parameter["in"]),
            kind: kind(&parameter["schema"]),
            required: parameter["required"] == true,
            description: prose(&parameter["description"]),
        });
    let answers = entries(&operation["responses"]).map(|(status, answer)| Answer {
        status: status.to_owned(),
        description: prose(&answer["description"]),
        schema: entries(&answer["content"])
            .next()
            .and_then(|(_, content)| reference(&content["schema"])),
    });
    let scope = operation["security"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|requirement| {
            entries(requirement).find_map(|(_, scopes)| scopes[0].as_str().map(str::to_owned))
        });
    Operation {
        id: text(&operation["operationId"]),
        method: method.to_owned(),
        path: path.to_owned(),
        summary: text(&operation["summary"]),
        description: prose(&operation["description"]),
        scope,
        parameters: parameters.collect(),
        body: entries(&operation["requestBody"]["content"])
            .next()
            .and_then(|(_, content)| reference(&content["schema"])),
        answers: answers.collect(),
    }
}

fn read_schema(name: &str, schema: &Value) -> Schema {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let members = entries(&schema["properties"]).map(|(member, property)| Member {
        name: member.to_owned(),
        kind: kind(property),
        required: required.contains(&member),
        description: prose(&property["description"]),
    });
    Schema {
        name: name.to_owned(),
        description: prose(&schema["description"]),
        members: members.collect(),
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
}

/// A description, with what stands between backticks as code.
fn prose(value: &Value) -> Vec<Piece> {
    let pieces = value.as_str().unwrap_or_default().split('`').enumerate();
    pieces
        .filter(|(_, text)| !text.is_empty())
        .map(|(index, text)| Piece {
            is_code: index % 2 == 1,
            text: text.to_owned(),
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn reference(schema: &Value) -> Option<String> {
    schema["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
        .map(str::to_owned)
}

/// A schema's type in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return name;
    }
    let alternatives = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    if let Some(alternatives) = alternatives {
        return alternatives.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    let of = |name: &str| match name {
        "array" => format!("array of {}", kind(&schema["items"])),
        _ => match schema["format"].as_str() {
            Some(format) if format != "int64" && format != "int32" => format!("{name} ({format})"),
            _ => name.to_owned(),
        },
    };
    match &schema["type"] {
        Value::String(name) => of(name),
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .map(of)
            .collect::<Vec<_>>()
            .join(" or "),
        _ => "any".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_backticks_is_code() {
        let piece = |is_code, text: &str| Piece {
            is_code,
            text: text.to_owned(),
        };
        let pieces = prose(&Value::from("`status` is `active`"));
        assert_eq!(
            pieces,
            [piece(true, "status"), piece(false, " is "), piece(true, "active")]
        );
    }

    #[test]
    fn a_type_is_told_in_a_few_words() {
        let kind = |schema: Value| kind(&schema);
        assert_eq!(
            kind(serde_json::json!({ "type": ["string", "null"], "format": "date-time" })),
            "string (date-time) or null (date-time)"
        );
        assert_eq!(
            kind(serde_json::json!({ "type": "array", "items": { "type": "string" } })),
            "array of string"
        );
        assert_eq!(
            kind(serde_json::json!({ "$ref": "#/components/schemas/Connection" })),
            "Connection"
        );
        assert_eq!(
            kind(serde_json::json!({ "oneOf": [{ "type": "null" }, { "type": "integer" }] })),
            "null or integer"
        );
    }
}
