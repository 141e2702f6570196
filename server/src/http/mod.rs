//! The HTTP surface: the API for front ends and back ends and the WebSocket endpoint, one set of routes
//! for every version of HTTP. A transport puts the peer's [`SocketAddr`](std::net::SocketAddr) on each request.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tern_protocol::Code;
use tower::util::MapResponseLayer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

mod admin;
mod answers;
mod blocks;
mod body;
mod bootstrap;
mod cache;
mod connect;
mod conversations;
mod dev_tokens;
mod door;
mod history;
pub mod http3;
mod idempotency;
mod members;
mod messages;
mod openapi;
mod page;
mod presence;
mod problem;
mod query;
mod request_id;
mod serve;
mod submit;
#[cfg(test)]
mod tests;

pub use bootstrap::{Bootstrap, Plain};
pub use dev_tokens::DevTokens;
pub use page::PageConfig;
pub use problem::Problem;
pub use serve::Server;

use crate::auth::Authenticator;
use crate::budget::Budget;
use crate::conversation::history::History;
use crate::delivery::Delivery;
use crate::drain::Shutdown;
use crate::ops::metrics::Metrics;
use crate::presence::Presence;
use crate::session::Gateway;
use crate::session::quota::Quota;
use crate::store::Store;
use crate::transport::{TransportConfig, origin};
use crate::upkeep::Accounts;
use connect::Entrance;
use door::Door;
use idempotency::IDEMPOTENCY_KEY;
use openapi::{Document, Routes};
use request_id::X_REQUEST_ID;
use submit::Desk;

/// Browsers may keep the answer to a preflight for so long.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// What the API is served with.
pub struct Services {
    /// Serves WebSockets.
    pub gateway: Gateway,
    /// Owns the sessions on them.
    pub shutdown: Shutdown,
    /// Checks tokens.
    pub auth: Arc<Authenticator>,
    /// Rates of users and addresses, the same as for sessions.
    pub quota: Arc<Quota>,
    /// Takes changes.
    pub router: crate::router::Router,
    /// The way to sessions.
    pub delivery: Delivery,
    /// Reads logs.
    pub history: History,
    /// Users and their erasures.
    pub store: Arc<dyn Store>,
    /// Who is there.
    pub presence: Presence,
    /// Sessions and tokens, for administrators.
    pub accounts: Accounts,
    /// Memory that answers may take.
    pub answers: Budget,
    /// Counts.
    pub metrics: Metrics,
    /// Whom pages and proxies may be.
    pub transport: TransportConfig,
    /// Where clients connect.
    pub bootstrap: Bootstrap,
    /// Makes tokens for whoever asks; on a development node only.
    pub dev_tokens: Option<DevTokens>,
    /// Whether the chat page is served.
    pub page: bool,
}

/// What handlers are called with: each takes of it what it names. Cheap to clone.
#[derive(Clone)]
struct Api(Arc<Served>);

struct Served {
    door: Door,
    desk: Desk,
    history: History,
    presence: Presence,
    accounts: Accounts,
    entrance: Entrance,
    bootstrap: Bootstrap,
    dev_tokens: Option<DevTokens>,
    document: Document,
}

macro_rules! handlers_take {
    ($($part:ident: $type:ty),*) => {
        $(impl FromRef<Api> for $type {
            fn from_ref(api: &Api) -> Self {
                api.0.$part.clone()
            }
        })*
    };
}
handlers_take!(
    door: Door, desk: Desk, history: History, presence: Presence, accounts: Accounts, entrance: Entrance, bootstrap: Bootstrap,
    dev_tokens: Option<DevTokens>, document: Document
);

/// All routes for clients.
pub fn router(services: Services) -> Router {
    let (mut routes, document) = routes(services.dev_tokens.is_some(), services.page).finish();
    if services.page {
        routes = routes.merge(page::routes(&services.bootstrap));
    }
    let (cors, metrics) = (cors(services.transport.clone()), services.metrics.clone());
    routes
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
        })
        .method_not_allowed_fallback(|| async {
            let detail = "this path does not take this method; Allow names those it takes";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
        })
        .with_state(api(services, document))
        .layer(CatchPanicLayer::custom(|_| {
            let detail = "this is a fault of the server; its log has more";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).into_response()
        }))
        .layer(MapResponseLayer::new(move |response| finish(&metrics, response)))
        .layer(cors)
        .layer(axum::middleware::from_fn(request_id::name))
}

fn api(services: Services, document: Document) -> Api {
    let Services { gateway, shutdown, auth, quota, router, delivery, history, store, .. } = services;
    let Services { presence, accounts, transport, bootstrap, dev_tokens, answers, .. } = services;
    let proxies = Arc::new(transport.proxies());
    let desk = Desk { store: store.clone(), quota: quota.clone(), router, delivery };
    let door = Door { auth, quota, store, proxies: proxies.clone(), answers };
    let entrance = Entrance { gateway, shutdown, transport: Arc::new(transport), proxies };
    Api(Arc::new(Served {
        door,
        desk,
        history,
        presence,
        accounts,
        entrance,
        bootstrap,
        dev_tokens,
        document,
    }))
}

fn routes(dev: bool, page: bool) -> Routes {
    let routes = Routes::new();
    // The page stands at the same place.
    let routes = if page { routes } else { routes.add(__path_welcome, welcome) };
    let routes = routes
        .add(bootstrap::__path_bootstrap, bootstrap::bootstrap)
        .add(openapi::__path_document, openapi::document)
        .add(connect::__path_connect, connect::connect)
        .add(history::__path_history, history::history)
        .add(messages::__path_send, messages::send)
        .add(conversations::__path_list, conversations::list)
        .add(conversations::__path_create, conversations::create)
        .add(conversations::__path_show, conversations::show)
        .add(members::__path_rename, members::rename)
        .add(members::__path_leave, members::leave)
        .add(members::__path_list, members::list)
        .add(members::__path_add, members::add)
        .add(members::__path_remove, members::remove)
        .add(members::__path_set_role, members::set_role)
        .add(admin::__path_sessions, admin::sessions)
        .add(admin::__path_close_all, admin::close_all)
        .add(admin::__path_close_one, admin::close_one)
        .add(admin::__path_revoke, admin::revoke)
        .add(members::__path_leave_many, members::leave_many)
        .add(members::__path_keep, members::keep)
        .add(blocks::__path_list, blocks::list)
        .add(blocks::__path_block, blocks::block)
        .add(blocks::__path_unblock, blocks::unblock)
        .add(presence::__path_look, presence::look);
    if dev { routes.add(dev_tokens::__path_mint, dev_tokens::mint) } else { routes }
}

/// Says what this is.
#[utoipa::path(
    get, path = "/", operation_id = "welcome",
    responses((status = 200, description = "A few words for people", body = String, content_type = "text/plain"))
)]
async fn welcome() -> impl IntoResponse {
    concat!(
        "tern ",
        env!("CARGO_PKG_VERSION"),
        "\nWhere to connect: /v1/bootstrap\nThe API: /v1/openapi.json\n"
    )
}

/// Pages of the configured origins may ask, and read what they need of the answers.
fn cors(transport: TransportConfig) -> CorsLayer {
    let allowed = move |value: &HeaderValue, head: &http::request::Parts| {
        value.to_str().is_ok_and(|origin| origin::is_allowed(origin, &head.uri, &head.headers, &transport))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_NONE_MATCH,
            IDEMPOTENCY_KEY,
            X_REQUEST_ID,
        ])
        .expose_headers([header::ETAG, header::LOCATION, header::RETRY_AFTER, X_REQUEST_ID])
        .max_age(PREFLIGHT_AGE)
}

/// What every answer has, and what is counted of it.
fn finish(metrics: &Metrics, mut response: Response) -> Response {
    if let Some(code) = response.extensions().get::<Code>() {
        metrics.refused.count(*code);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    let headers = response.headers_mut();
    let no_store = HeaderValue::from_static("private, no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    const NO_SNIFF: HeaderName = header::X_CONTENT_TYPE_OPTIONS;
    headers.insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    response
}
