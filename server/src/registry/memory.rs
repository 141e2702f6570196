//! Stub.
use super::*;
#[derive(Default)] pub struct MemoryRegistry;
#[async_trait] impl Registry for MemoryRegistry {
 async fn register(&self, _: &UserId, _: &SessionAddress) -> Result<(), RegistryError> { Ok(()) }
 async fn unregister(&self, _: &UserId, _: &SessionAddress) -> Result<(), RegistryError> { Ok(()) }
 async fn locate(&self, _: &[UserId]) -> Result<Vec<Vec<SessionAddress>>, RegistryError> { Ok(vec![]) }
}
