//! What handlers answer with, when they do what was asked. Each type says of itself what it is, for `/openapi.json`.

use aide::OperationOutput;
use aide::generate::GenContext;
use aide::openapi::{
    Header, HeaderStyle, Operation, ParameterSchemaOrContent, ReferenceOr, Response as Described,
    SchemaObject,
};
use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use model::TaskId;
use schemars::{JsonSchema, Schema, json_schema};
use serde::Serialize;

use super::answer::Failure;
use super::content::media;

/// What a handler returns.
pub(super) type Answer<T> = Result<T, Failure>;

/// A list, whole: the CLI knows no pages.
pub(super) type List<T> = Answer<Json<Vec<T>>>;

/// Answers by status, for the document.
pub(super) type ByStatus = Vec<(Option<u16>, Described)>;

/// Sends the client to a task. With 302, which is followed with GET whatever the method was; relative, because the CLI goes on
/// with the host that it was given.
pub(super) struct SeeTask(pub TaskId);

impl IntoResponse for SeeTask {
    fn into_response(self) -> Response {
        (StatusCode::FOUND, [(LOCATION, format!("/tasks/{}", self.0))]).into_response()
    }
}

impl OperationOutput for SeeTask {
    type Inner = Self;

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> ByStatus {
        let mut answer = empty("A task does it: `GET` what `Location` names.");
        let path = json_schema!({ "type": "string", "pattern": "^/tasks/[0-9]+$" });
        answer.headers.insert("Location".into(), ReferenceOr::Item(header(path)));
        vec![(Some(302), answer)]
    }
}

/// Rows, or a task that finds more out.
pub(super) enum RowsOrTask<T> {
    /// What is known.
    Rows(Vec<T>),
    /// Whoever asks the agents.
    Task(TaskId),
}

impl<T: Serialize> IntoResponse for RowsOrTask<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Rows(rows) => Json(rows).into_response(),
            Self::Task(task) => SeeTask(task).into_response(),
        }
    }
}

impl<T: JsonSchema> OperationOutput for RowsOrTask<T> {
    type Inner = Self;

    fn inferred_responses(ctx: &mut GenContext, operation: &mut Operation) -> ByStatus {
        let mut answers = Json::<Vec<T>>::inferred_responses(ctx, operation);
        answers.extend(SeeTask::inferred_responses(ctx, operation));
        answers
    }
}

/// It has been done, and there is nothing to tell.
pub(super) struct Done;

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl OperationOutput for Done {
    type Inner = Self;

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> ByStatus {
        vec![(Some(204), empty("Done."))]
    }
}

/// The same, as BOSH answers where something was set.
pub(super) struct IsSet;

impl IntoResponse for IsSet {
    fn into_response(self) -> Response {
        StatusCode::OK.into_response()
    }
}

impl OperationOutput for IsSet {
    type Inner = Self;

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> ByStatus {
        vec![(Some(200), empty("Done."))]
    }
}

/// It is stored.
pub(super) struct Stored;

impl IntoResponse for Stored {
    fn into_response(self) -> Response {
        StatusCode::CREATED.into_response()
    }
}

impl OperationOutput for Stored {
    type Inner = Self;

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> ByStatus {
        vec![(Some(201), empty("It is stored."))]
    }
}

/// Nothing but errors.
pub(super) enum Never {}

impl IntoResponse for Never {
    fn into_response(self) -> Response {
        match self {}
    }
}

impl OperationOutput for Never {
    type Inner = Self;
}

/// Bytes of an archive.
pub(super) struct Content {
    /// How many.
    pub size_bytes: u64,
    /// They.
    pub body: Body,
}

impl IntoResponse for Content {
    fn into_response(self) -> Response {
        use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
        let size = self.size_bytes.to_string();
        ([(CONTENT_TYPE, "application/x-gzip".to_owned()), (CONTENT_LENGTH, size)], self.body).into_response()
    }
}

impl OperationOutput for Content {
    type Inner = Self;

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> ByStatus {
        let bytes = json_schema!({ "type": "string", "format": "binary" });
        vec![(Some(200), with("The bytes.", "application/x-gzip", bytes))]
    }
}

/// Bytes, and what a file of them may be called.
pub(super) struct NamedContent {
    /// The file's name.
    pub name: String,
    /// They.
    pub content: Content,
}

impl IntoResponse for NamedContent {
    fn into_response(self) -> Response {
        use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
        let headers = [
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            (CONTENT_LENGTH, self.content.size_bytes.to_string()),
            (CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", self.name)),
        ];
        (headers, self.content.body).into_response()
    }
}

impl OperationOutput for NamedContent {
    type Inner = Self;

    fn inferred_responses(_: &mut GenContext, _: &mut Operation) -> ByStatus {
        let bytes = json_schema!({ "type": "string", "format": "binary" });
        vec![(Some(200), with("The bytes.", "application/octet-stream", bytes))]
    }
}

/// Returns an answer without a body.
pub(super) fn empty(about: &str) -> Described {
    Described { description: about.into(), ..Described::default() }
}

/// Returns an answer with a body.
pub(super) fn with(about: &str, kind: &str, schema: Schema) -> Described {
    let mut answer = empty(about);
    answer.content.insert(kind.into(), media(schema));
    answer
}

/// Returns an answer that is text.
pub(super) fn text(about: &str) -> Described {
    with(about, "text/plain", json_schema!({ "type": "string" }))
}

/// Returns a header that is always there.
pub(super) fn header(json_schema: Schema) -> Header {
    Header {
        description: None,
        style: HeaderStyle::Simple,
        required: true,
        deprecated: None,
        format: ParameterSchemaOrContent::Schema(SchemaObject {
            json_schema,
            external_docs: None,
            example: None,
        }),
        example: None,
        examples: Default::default(),
        extensions: Default::default(),
    }
}
