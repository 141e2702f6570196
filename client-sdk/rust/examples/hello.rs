//! Sends one message to `bob` and prints its ack and the next entry. The server's address, the
//! SHA-256 of its certificate (hex) and a token come from the environment.

use tern_client::{Client, Config, EntryBody, Event, Trust, UserId};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::new(std::env::var("TERN_TOKEN")?)
        .quic(std::env::var("TERN_QUIC")?)
        .trust(Trust::cert_sha256_hex(&std::env::var("TERN_CERT_SHA256")?)?);
    let (client, mut events) = Client::connect(config).await?;
    let ack = client.send(UserId::new("bob")?, "hello").await?;
    println!("durable: entry {} of {}", ack.seq, ack.conversation);
    while let Some(event) = events.next().await {
        if let Event::Entry { entry, .. } = event
            && let EntryBody::Message { text, .. } = entry.body
        {
            println!("{}: {text}", entry.sender);
            break;
        }
    }
    client.close().await;
    Ok(())
}
