//! What a store's error means to us, and repeating a read until it is answered.

use std::time::Duration;

use object_store::Error as StoreError;
use tandem_types::{Error, Result};

use crate::{Chance, Clock};

/// How often a read is tried: with the waits below, about five seconds in all.
const ATTEMPTS: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The `store` name under which [`crate::LocalStore`] reports that it refuses to go on.
pub(crate) const REFUSING: &str = "local store (refusing until restart)";

/// Whether asking again cannot help.
pub(crate) fn is_final(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::NotFound { .. }
            | StoreError::InvalidPath { .. }
            | StoreError::NotSupported { .. }
            | StoreError::NotImplemented { .. }
            | StoreError::PermissionDenied { .. }
            | StoreError::Unauthenticated { .. }
            | StoreError::UnknownConfigurationKey { .. }
            | StoreError::Generic { store: REFUSING, .. }
    )
}

/// Whether a create was refused because something is there, or seems to be.
pub(crate) fn says_exists(error: &StoreError) -> bool {
    matches!(
        error,
        // Azure 0.13 leaves its 412 a Precondition; S3 and GCS call it AlreadyExists.
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } | StoreError::NotModified { .. }
    )
}

/// A random wait before attempt `attempt` (from 1), half to all of a doubling bound.
pub(crate) fn wait(chance: &dyn Chance, attempt: u32) -> Duration {
    let bound = FIRST_WAIT.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST_WAIT);
    let half = bound / 2;
    half + Duration::from_micros(chance.below(u64::try_from(half.as_micros()).unwrap_or(u64::MAX)))
}

/// Runs `request` until it is answered: by success, by an error that asking again cannot
/// change, or by the last of a bounded number of errors.
pub(crate) async fn answered<T, F: Future<Output = object_store::Result<T>>>(
    clock: &dyn Clock,
    chance: &dyn Chance,
    mut request: impl FnMut() -> F,
) -> object_store::Result<T> {
    let mut attempt = 1;
    loop {
        match request().await {
            Err(error) if attempt < ATTEMPTS && !is_final(&error) => {
                clock.sleep(wait(chance, attempt)).await;
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

/// The error that the rest of the project sees for a failed request about `path`.
pub(crate) fn public_error(what: &str, path: &str, url: &str, error: &StoreError) -> Error {
    let message = format!("{what} {path} in {url}: {}", describe(error));
    match error {
        StoreError::NotFound { .. } => Error::not_found(message),
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => Error::already_exists(message),
        StoreError::InvalidPath { .. } => Error::internal(message),
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => Error::unsupported(message),
        _ => Error::unavailable(message),
    }
}

/// The error as text, on one line, with what could be a signature cut out.
pub(crate) fn describe(error: &StoreError) -> String {
    const SECRETS: [&str; 4] = ["sig=", "Signature=", "Credential=", "Security-Token="];
    let mut text = error.to_string().replace(['\n', '\r'], " ");
    for secret in SECRETS {
        let mut from = 0;
        while let Some(at) = text.get(from..).and_then(|rest| rest.find(secret)) {
            let start = from + at + secret.len();
            let end = text
                .get(start..)
                .and_then(|rest| rest.find(|c: char| "& \"'<>),".contains(c)))
                .map_or(text.len(), |len| start + len);
            text.replace_range(start..end, "...");
            from = start + 3;
        }
    }
    text
}

/// `Result` of a store request, as the rest of the project sees it.
pub(crate) fn publicly<T>(answer: object_store::Result<T>, what: &str, path: &str, url: &str) -> Result<T> {
    answer.map_err(|error| public_error(what, path, url, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemChance;

    #[test]
    fn waits_double_and_stay_bounded() {
        for attempt in 1..40 {
            let waited = wait(&SystemChance, attempt);
            assert!(waited >= FIRST_WAIT / 2 && waited <= LONGEST_WAIT, "{attempt}: {waited:?}");
        }
        assert!(wait(&SystemChance, 5) >= FIRST_WAIT * 8);
    }

    #[test]
    fn signatures_do_not_reach_messages() {
        let source = "GET http://h/c?sv=1&sig=abc%2F&se=2 X-Amz-Signature=123 (sig=\nx)".into();
        let text = describe(&StoreError::Generic { store: "t", source });
        assert!(text.contains("sv=1&sig=...&se=2 X-Amz-Signature=... (sig="), "{text}");
        assert!(!text.contains("abc") && !text.contains("123"), "{text}");
    }
}
