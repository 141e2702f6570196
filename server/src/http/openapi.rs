//! The routes with their description: each is added once, with both, so that neither lacks the other.

use axum::Router;
use axum::extract::State;
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use http::HeaderMap;
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Paths, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToResponse, ToSchema};

use super::cache::{self, Keep};
use super::door::Stranger;
use super::{Api, Problem};

/// What routes are called with, and what says so.
pub(super) struct Routes {
    router: Router<Api>,
    paths: Paths,
    schemas: Vec<(String, RefOr<Schema>)>,
}

/// The description, written once.
#[derive(Clone)]
pub(super) struct Document(pub(super) bytes::Bytes);

impl Routes {
    pub(super) fn new() -> Self {
        Self { router: Router::new(), paths: Paths::new(), schemas: Vec::new() }
    }

    /// Adds a handler where its description says that it is.
    pub(super) fn add<P, H, T>(mut self, _: P, handler: H) -> Self
    where
        P: utoipa::Path + utoipa::__dev::SchemaReferences,
        H: Handler<T, Api>,
        T: 'static,
    {
        let (path, methods) = (P::path(), P::methods());
        for method in &methods {
            self.router = self.router.route(&path, on(filter(method), handler.clone()));
        }
        let mut operation = P::operation();
        add_refusals(&mut operation);
        self.paths.add_path_operation(path, methods, operation);
        P::schemas(&mut self.schemas);
        self
    }

    /// The routes, and the document about them.
    pub(super) fn finish(mut self) -> (Router<Api>, Document) {
        Problem::schemas(&mut self.schemas);
        self.schemas.push((Problem::name().into_owned(), Problem::schema()));
        let (name, response) = Problem::response();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("`sub` is the user, `exp` is required, `name` is the display name."))
            .build();
        let components = ComponentsBuilder::new()
            .schemas_from_iter(self.schemas)
            .response(name, response)
            .security_scheme("bearer", SecurityScheme::Http(bearer))
            .build();
        let info = InfoBuilder::new()
            .title("Tern")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some("The HTTP API of Tern, a self-hosted real-time chat backend."))
            .build();
        let api: OpenApi =
            OpenApiBuilder::new().info(info).paths(self.paths).components(Some(components)).build();
        let text = api.to_json().expect("a description serialises without failing");
        (self.router, Document(text.into()))
    }
}

/// What any route may answer, by what it takes.
fn add_refusals(operation: &mut Operation) {
    let mut statuses = vec!["400", "429", "503"];
    if operation.security.is_some() {
        statuses.push("401");
    }
    if operation.request_body.is_some() {
        statuses.extend(["408", "413", "415", "422"]);
    }
    for status in statuses {
        let problem = RefOr::Ref(Ref::from_response_name(Problem::response().0));
        operation.responses.responses.entry(status.to_owned()).or_insert(problem);
    }
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Get => MethodFilter::GET,
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Options => MethodFilter::OPTIONS,
        HttpMethod::Head => MethodFilter::HEAD,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Trace => MethodFilter::TRACE,
    }
}

/// Describes this API.
///
/// OpenAPI 3.1, with every route of this server and no other.
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "describe_api",
    responses(
        (status = 200, description = "This document", body = serde_json::Value),
        (status = 304, description = "It has the ETag that If-None-Match names"),
    )
)]
pub(super) async fn document(
    State(Document(text)): State<Document>,
    _: Stranger,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Ok(cache::kept(&headers, text, Keep::Public))
}
