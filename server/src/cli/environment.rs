//! The environment, as the configuration reads it.

/// The variables of the environment that are text: no key of the configuration is anything else.
pub(super) fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
