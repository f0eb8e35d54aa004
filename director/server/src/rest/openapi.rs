//! The document at `/openapi.json`: the REST API as the types of its handlers describe it.
//!
//! It is made once, when the routes are. What all operations have in common is added here: what is in their paths, and how
//! those fail that change something or that have a body.

use std::collections::BTreeMap;

use aide::axum::ApiRouter;
use aide::generate::{GenContext, in_context};
use aide::openapi::{
    Components, Info, OpenApi, Operation, PathItem, ReferenceOr, Response as Described, SecurityScheme,
    StatusCode as Status, Tag,
};
use aide::operation::ParamLocation;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use schemars::generate::SchemaSettings;
use schemars::json_schema;

use super::Rest;
use super::answer::error;
use super::content::{AnyDocument, taken, text_parameter};
use super::described::by_noun;
use super::login::{Login, WAYS};
use super::outcome::{Answer, ByStatus, with};

/// What answers with it.
pub(super) struct Description(Bytes);

impl IntoResponse for Description {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

impl aide::OperationOutput for Description {
    type Inner = Self;

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> ByStatus {
        vec![(Some(200), with("This document.", "application/json", taken::<AnyDocument>()))]
    }
}

/// Describes the REST API.
pub(super) async fn document(Login(caller): Login, State(rest): State<Rest>) -> Answer<Description> {
    rest.door.service.may_see_description(&caller)?;
    Ok(Description(rest.document.clone()))
}

/// Returns all routes, and the document that describes them.
pub(super) fn routes() -> (Router<Rest>, OpenApi) {
    // Answers are described as they are written: a field that is always there is required.
    in_context(|ctx| {
        ctx.schema = SchemaSettings::draft07().with(of_components).for_serialize().into_generator()
    });
    let mut document = OpenApi { info: about(), ..OpenApi::default() };
    let (mut router, mut nouns) = (ApiRouter::new(), BTreeMap::new());
    for (noun, table) in by_noun() {
        document.tags.push(Tag { name: noun.into(), ..Tag::default() });
        for (path, methods) in table {
            nouns.insert(path.to_owned(), noun);
            router = router.api_route(path, methods);
        }
    }
    let router = router.finish_api_with(&mut document, |mut document| {
        let paths = document.inner_mut().paths.iter_mut().flat_map(|paths| &mut paths.paths);
        for (path, item) in paths {
            if let ReferenceOr::Item(item) = item {
                in_context(|ctx| complete(ctx, path, nouns[path], item));
            }
        }
        document
    });
    let components = document.components.get_or_insert_with(Components::default);
    components.security_schemes =
        ways().into_iter().map(|(name, way)| (name.to_owned(), ReferenceOr::Item(way))).collect();
    (router, document)
}

fn of_components(settings: &mut SchemaSettings) {
    settings.definitions_path = "#/components/schemas/".into();
}

fn about() -> Info {
    Info {
        title: "Directorate, as BOSH's CLI speaks to it".into(),
        description: Some(
            "Any replica answers everything. Whatever makes a task answers with 302 to it. Who may not is answered with 401, as \
             in BOSH."
                .into(),
        ),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Info::default()
    }
}

fn ways() -> [(&'static str, SecurityScheme); 2] {
    let way = |scheme: &str, about: &str| SecurityScheme::Http {
        scheme: scheme.into(),
        bearer_format: None,
        description: Some(about.into()),
        extensions: Default::default(),
    };
    let [password, token] = WAYS;
    [
        (password, way("basic", "A user of the fleet, with a password.")),
        (token, way("bearer", "A token of a user of the fleet, or of a UAA.")),
    ]
}

/// Adds to the operations of a path what their handlers don't say.
fn complete(ctx: &mut GenContext, path: &str, noun: &str, item: &mut PathItem) {
    for (method, operation) in [
        ("get", &mut item.get),
        ("post", &mut item.post),
        ("put", &mut item.put),
        ("delete", &mut item.delete),
    ] {
        let Some(operation) = operation else { continue };
        operation.tags.push(noun.to_owned());
        add_parts(ctx, path, operation);
        if operation.request_body.is_some() {
            add_answer(operation, 413, error(ctx, "The body is too large."));
        }
        if method != "get" {
            add_answer(
                operation,
                409,
                error(ctx, "A replica is too old to know of this; it is to be upgraded first."),
            );
            add_answer(operation, 507, error(ctx, "A disk is full. Somebody has to make room."));
        }
        match path {
            "/links" => add_answer(operation, 403, error(ctx, "The link is not shared.")),
            _ if path.ends_with("/{instance}/resurrection") => {
                add_answer(operation, 410, error(ctx, "What to do instead."));
            }
            _ => {}
        }
        sort_answers(operation);
    }
}

/// The parts of a path that stand for something are parameters. All are text: what a number is, is not to be seen from it.
fn add_parts(ctx: &mut GenContext, path: &str, operation: &mut Operation) {
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let about = json_schema!({ "type": "string", "minLength": 1 });
        operation.parameters.extend(text_parameter(ctx, name, (ParamLocation::Path, true), about));
    }
}

fn add_answer(operation: &mut Operation, status: u16, answer: Described) {
    let answers = operation.responses.get_or_insert_default();
    answers.responses.entry(Status::Code(status)).or_insert(ReferenceOr::Item(answer));
}

/// Answers by number, and none without a word.
fn sort_answers(operation: &mut Operation) {
    let answers = operation.responses.get_or_insert_default();
    answers.responses.sort_by_cached_key(|status, _| status.to_string());
    for (_, answer) in &mut answers.responses {
        if let ReferenceOr::Item(Described { description, .. }) = answer
            && description.is_empty()
        {
            *description = "What was asked for.".into();
        }
    }
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;
