//! The chat page: served with nothing inline and nothing from elsewhere, in development and where it is switched on.

use http::StatusCode;
use tern_tests::http::Http;
use tern_tests::{Deployment, Options, Server, TokenKey};

const FILES: [(&str, &str); 5] = [
    ("/", "text/html; charset=utf-8"),
    ("/app.js", "text/javascript; charset=utf-8"),
    ("/sdk.js", "text/javascript; charset=utf-8"),
    ("/style.css", "text/css; charset=utf-8"),
    ("/icon.svg", "image/svg+xml"),
];

#[tokio::test]
async fn every_file_comes_with_the_strict_policy_on_every_port() {
    let server = Server::start().await;
    let ready = server.ready();
    assert_eq!(ready.page_url.as_deref(), Some(format!("{}/", ready.http_url).as_str()));
    for how in Http::ALL {
        for (path, kind) in FILES {
            let answer = server.get(how, path, None).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
            assert_eq!(answer.headers["content-type"], kind, "{path}");
            assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
            assert_eq!(answer.headers["cache-control"], "no-cache", "{path}");
            assert!(answer.headers.contains_key("etag"), "{path}");
            let policy = answer.headers["content-security-policy"].to_str().unwrap();
            for part in
                ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'self'"]
            {
                assert!(policy.split("; ").any(|one| one == part), "{path}: {part} is not in {policy}");
            }
            assert!(!policy.contains("unsafe") && !policy.contains('*'), "{path}: {policy}");
            let client = format!("https://127.0.0.1:{}", ready.quic_addr.port());
            assert!(policy.contains(&client), "{path}: {client} is not in {policy}");
        }
    }
}

#[tokio::test]
async fn there_is_no_page_in_operation_unless_it_is_switched_on() {
    let key = TokenKey::new("page");
    for (more, served) in [("", false), ("[page]\nenabled = true\n", true)] {
        let deployment = Deployment::new();
        let file = deployment.put_public_key("jwt.pem", &key);
        deployment
            .configure(&format!("[[auth.keys]]\nalgorithm = \"ES256\"\npublic_key_file = {file:?}\n{more}"));
        let server = Options::default().serve(&deployment.config()).start().await;
        assert_eq!(server.ready().page_url.is_some(), served);
        assert_eq!(server.get(Http::One, "/app.js", None).await.status == StatusCode::OK, served);
        let start = server.get(Http::One, "/", None).await;
        assert_eq!(start.body.contains("<script"), served, "{}", start.body);
    }
}
