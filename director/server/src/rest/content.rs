//! What requests bring: queries, and bodies of JSON, of YAML and of bytes. Each type reads what it stands for, and says of
//! itself what that is, so that `/openapi.json` tells what the handlers take and nothing else.
//!
//! Whether somebody may is told before what is wrong with what they sent: most bodies are read here as bytes alone, and by
//! their handler when their turn has come.

use std::marker::PhantomData;

use aide::OperationInput;
use aide::generate::GenContext;
use aide::openapi::{MediaType, Operation, Parameter, ReferenceOr, RequestBody, SchemaObject};
use aide::operation::{ParamLocation, add_parameters, parameters_from_schema, set_body};
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use model::ErrorCode;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, json_schema};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::answer::{Failure, told};

/// Parameters of a query. Those that make no sense are told as every other mistake is.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        read.map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| told(ErrorCode::BadRequest, error.body_text()))
    }
}

impl<T: JsonSchema> OperationInput for Query<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        add_query::<T>(ctx, operation);
    }
}

/// Parameters of a query in which one may be there several times, as they come; `T` says which there are.
pub(super) struct Pairs<T> {
    /// Names and values.
    pub pairs: Vec<(String, String)>,
    described: PhantomData<fn() -> T>,
}

impl<T, S: Send + Sync> FromRequestParts<S> for Pairs<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Query(pairs) = Query::from_request_parts(parts, state).await?;
        Ok(Self { pairs, described: PhantomData })
    }
}

impl<T: JsonSchema> OperationInput for Pairs<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        add_query::<T>(ctx, operation);
    }
}

fn add_query<T: JsonSchema>(ctx: &mut GenContext, operation: &mut Operation) {
    let mut schema = taken::<T>();
    // A parameter is there or it is not; it can't be null.
    let fields = schema.ensure_object().get_mut("properties").and_then(Value::as_object_mut);
    for kind in fields.into_iter().flatten().filter_map(|(_, field)| field.get_mut("type")) {
        if let Value::Array(kinds) = kind {
            kinds.retain(|kind| kind != "null");
            if let [only] = kinds.as_slice() {
                *kind = only.clone();
            }
        }
    }
    let mut parameters = parameters_from_schema(ctx, schema, ParamLocation::Query);
    for data in parameters.iter_mut().map(Parameter::parameter_data_mut) {
        data.description = data.description.take().map(|text| text.replace('\n', " "));
    }
    add_parameters(ctx, operation, parameters);
}

/// Returns what of a type is read, whole.
pub(super) fn taken<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().subschema_for::<T>()
}

/// A body of JSON that is an object with such fields.
pub(super) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Unread::from_request(request, state).await?.read().map(Self)
    }
}

impl<T: JsonSchema> OperationInput for JsonBody<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        Unread::<T>::operation_input(ctx, operation);
    }
}

/// A body of JSON that the handler reads.
pub(super) struct Unread<T> {
    /// As it came.
    pub bytes: Bytes,
    described: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Unread<T> {
    /// Reads it. One that is none, or that lacks something, is told as every other mistake is.
    pub fn read(&self) -> Result<T, Failure> {
        self.object().map_err(|error| {
            told(ErrorCode::BadRequest, format!("the body is not the JSON that is asked for: {error}"))
        })
    }

    /// Reads it. A structure would be read from an array, too, field by field: `[true]` would pause resurrection.
    pub fn object(&self) -> serde_json::Result<T> {
        match self.bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'[') => Err(serde::de::Error::custom("an object is expected, not an array")),
            _ => serde_json::from_slice(&self.bytes),
        }
    }
}

impl<T, S: Send + Sync> FromRequest<S> for Unread<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Ok(Self { bytes: Bytes::from_request(request, state).await?, described: PhantomData })
    }
}

impl<T: JsonSchema> OperationInput for Unread<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        add_body(ctx, operation, vec![("application/json", taken::<T>())]);
    }
}

/// A YAML document; `T` says what has to be in it.
pub(super) struct Yaml<T = AnyDocument> {
    /// As it came.
    pub bytes: Bytes,
    described: PhantomData<fn() -> T>,
}

/// A document with whatever there is in it.
pub(super) type AnyDocument = Map<String, Value>;

/// A deployment's manifest.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone: manifests are read elsewhere")]
pub(super) struct ManifestDocument {
    /// The deployment's name.
    name: String,
}

impl<T> Yaml<T> {
    /// Returns its text.
    pub fn text(&self) -> Result<String, Failure> {
        let text = std::str::from_utf8(&self.bytes);
        text.map(str::to_owned).map_err(|_| told(ErrorCode::BadYaml, "the body is not UTF-8"))
    }
}

impl<T, S: Send + Sync> FromRequest<S> for Yaml<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Ok(Self { bytes: Bytes::from_request(request, state).await?, described: PhantomData })
    }
}

impl<T: JsonSchema> OperationInput for Yaml<T> {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        add_body(ctx, operation, vec![("text/yaml", taken::<T>())]);
    }
}

/// A body that comes as YAML and has to be empty: BOSH takes a manifest there.
pub(super) struct NoYaml(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for NoYaml {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        Ok(Self(Bytes::from_request(request, state).await?))
    }
}

impl OperationInput for NoYaml {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        add_body(ctx, operation, vec![("text/yaml", json_schema!({ "type": "string", "maxLength": 0 }))]);
    }
}

/// A body that comes as JSON, and says nothing.
pub(super) struct NoJson;

impl<S: Send + Sync> FromRequestParts<S> for NoJson {
    type Rejection = Failure;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Failure> {
        Ok(Self)
    }
}

impl OperationInput for NoJson {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        add_body(ctx, operation, vec![("application/json", taken::<AnyDocument>())]);
    }
}

/// An archive, or where there is one.
pub(super) struct Archive(pub Body);

/// Where an archive is.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "for its description alone: nothing of it may get into an error")]
struct ArchiveElsewhere {
    /// Its URL, with user and password if they are needed.
    location: String,
    /// What it must be: a SHA1, or `sha256:…`.
    sha1: Option<String>,
}

impl<S: Send + Sync> FromRequest<S> for Archive {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        Ok(Self(request.into_body()))
    }
}

impl OperationInput for Archive {
    fn operation_input(ctx: &mut GenContext, operation: &mut Operation) {
        let bytes = json_schema!({ "type": "string", "format": "binary" });
        let kinds =
            vec![("application/x-compressed", bytes), ("application/json", taken::<ArchiveElsewhere>())];
        add_body(ctx, operation, kinds);
    }
}

fn add_body(ctx: &mut GenContext, operation: &mut Operation, kinds: Vec<(&str, Schema)>) {
    let content = kinds.into_iter().map(|(kind, schema)| (kind.to_owned(), media(schema))).collect();
    set_body(ctx, operation, RequestBody { content, required: true, ..RequestBody::default() });
}

/// Returns content as a schema describes it.
pub(super) fn media(json_schema: Schema) -> MediaType {
    let schema = Some(SchemaObject { json_schema, external_docs: None, example: None });
    MediaType { schema, ..MediaType::default() }
}

/// Returns a parameter that is text.
pub(super) fn text_parameter(
    ctx: &mut GenContext,
    name: &str,
    (place, required): (ParamLocation, bool),
    about: Schema,
) -> Vec<ReferenceOr<Parameter>> {
    let mut object = json_schema!({ "type": "object" });
    object.insert("properties".into(), Map::from_iter([(name.to_owned(), about.into())]).into());
    if required {
        object.insert("required".into(), vec![name].into());
    }
    parameters_from_schema(ctx, object, place).into_iter().map(ReferenceOr::Item).collect()
}
