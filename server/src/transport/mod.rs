//! Native QUIC and WebSocket become one [`Link`] here, before any policy.
