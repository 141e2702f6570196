//! Names each request, so that its log lines and its answer can be found together.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use tracing::Instrument;

/// Where a request's name stands.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest name that is taken from a client, in bytes.
const ID_BYTES_MAX: usize = 64;

/// Takes the client's `x-request-id`, or makes one, and tells it in the answer and in the span of the
/// request.
pub(super) async fn name(request: Request, next: Next) -> Response {
    let given = request.headers().get(X_REQUEST_ID).filter(|id| is_plain(id)).cloned();
    let id = given.unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::new_v4().simple().to_string()).expect("hexadecimal digits")
    });
    let text = id.to_str().unwrap_or_default();
    let span = tracing::debug_span!("request", request_id = text, method = %request.method());
    let answered = async {
        let response = next.run(request).await;
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    };
    let mut response = answered.instrument(span).await;
    response.headers_mut().insert(X_REQUEST_ID, id);
    response
}

/// Letters, digits and a few marks: what can stand in a log, a URL and a shell.
fn is_plain(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    !bytes.is_empty() && bytes.len() <= ID_BYTES_MAX && bytes.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    async fn told(id: Option<&str>) -> String {
        let router = Router::new().route("/", get(|| async {})).layer(axum::middleware::from_fn(name));
        let mut request = Request::get("/");
        if let Some(id) = id {
            request = request.header(X_REQUEST_ID, id);
        }
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        response.headers()[X_REQUEST_ID].to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_plain_id_is_kept_and_any_other_is_replaced() {
        assert_eq!(told(Some("job-7.retry_2")).await, "job-7.retry_2");
        assert_eq!(told(None).await.len(), 32);
        for bad in ["", "a b", "\"quoted\"", &"x".repeat(65)] {
            assert_eq!(told(Some(bad)).await.len(), 32, "{bad}");
        }
    }
}
