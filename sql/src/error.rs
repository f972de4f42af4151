//! What DataFusion says went wrong, in this project's kinds.

use std::error::Error as StdError;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use parquet::errors::ParquetError;
use tandem_types::{Error, ErrorKind};

use crate::similar::no_column;

/// Our own error if one caused it, else one of the kind that fits.
pub(crate) fn from_datafusion(error: DataFusionError) -> Error {
    translate(&error)
}

/// For results of DataFusion.
pub(crate) trait IntoTandem<T> {
    fn tandem(self) -> tandem_types::Result<T>;
}

impl<T> IntoTandem<T> for datafusion::error::Result<T> {
    fn tandem(self) -> tandem_types::Result<T> {
        self.map_err(from_datafusion)
    }
}

/// Carries an error of ours through DataFusion; [`from_datafusion`] takes it out again.
pub(crate) fn to_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn translate(error: &DataFusionError) -> Error {
    use DataFusionError as E;
    match error {
        E::External(inner) => foreign(inner.as_ref()),
        E::ArrowError(inner, _) => arrow(inner),
        E::ParquetError(inner) => parquet(inner),
        // Which rule of the optimizer met the error helps nobody who wrote the statement.
        E::Context(what, inner) if what.starts_with("Optimizer rule") => translate(inner),
        E::Context(what, inner) => translate(inner).context(what),
        E::Diagnostic(_, inner) => translate(inner),
        E::Shared(inner) => translate(inner),
        E::Collection(all) => match all.first() {
            Some(first) => translate(first),
            None => Error::internal("the query failed without a reason"),
        },
        E::SQL(inner, _) => Error::invalid(format!("the statement cannot be parsed: {inner}")),
        E::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                Error::not_found(no_column(field, valid_fields).unwrap_or_else(|| text(error)))
            }
            _ => Error::invalid(text(error)),
        },
        E::Plan(message) => {
            let missing = message.contains("' not found") || message.starts_with("failed to resolve");
            let kind = if missing { ErrorKind::NotFound } else { ErrorKind::InvalidInput };
            Error::new(kind, sentence(message))
        }
        E::NotImplemented(message) => Error::unsupported(sentence(message)),
        E::Execution(message) | E::Configuration(message) => Error::invalid(sentence(message)),
        E::ResourcesExhausted(message) => {
            Error::overloaded(format!("the query needs more memory or disk than it may have: {message}"))
        }
        E::ObjectStore(inner) => match StdError::source(inner.as_ref()).and_then(ours) {
            Some(error) => error,
            None => Error::unavailable(format!("the object store cannot be read now: {inner}")),
        },
        E::IoError(inner) => Error::internal(format!("a temporary file of the query failed: {inner}")),
        E::ExecutionJoin(inner) if inner.is_cancelled() => {
            Error::new(ErrorKind::Cancelled, "the query was cancelled")
        }
        E::ExecutionJoin(inner) => Error::internal(format!("the query panicked, which is a bug: {inner}")),
        other => Error::internal(text(other)),
    }
}

fn arrow(error: &ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => foreign(inner.as_ref()),
        ArrowError::MemoryError(message) => Error::overloaded(message.clone()),
        ArrowError::IoError(..) | ArrowError::IpcError(_) => Error::internal(error.to_string()),
        // Casts, arithmetic, parsing: the values do not suit the statement.
        other => Error::invalid(sentence(&other.to_string())),
    }
}

fn parquet(error: &ParquetError) -> Error {
    match error {
        ParquetError::External(inner) => foreign(inner.as_ref()),
        other => Error::damaged(format!("a data file cannot be decoded: {other}")),
    }
}

fn foreign(error: &(dyn StdError + 'static)) -> Error {
    if let Some(error) = ours(error) {
        return error;
    }
    if let Some(error) = error.downcast_ref::<DataFusionError>() {
        return translate(error);
    }
    if let Some(error) = error.downcast_ref::<ArrowError>() {
        return arrow(error);
    }
    if let Some(error) = error.downcast_ref::<ParquetError>() {
        return parquet(error);
    }
    match error.source() {
        Some(inner) => foreign(inner),
        None => Error::internal(error.to_string()),
    }
}

fn ours(error: &(dyn StdError + 'static)) -> Option<Error> {
    error.downcast_ref::<Error>().cloned()
}

fn text(error: &DataFusionError) -> String {
    sentence(&error.strip_backtrace())
}

/// As this project's messages begin: in lower case, without the library's prefix.
fn sentence(message: &str) -> String {
    const PREFIXES: [&str; 6] = [
        "Error during planning: ",
        "Schema error: ",
        "Invalid argument error: ",
        "Compute error: ",
        "Cast error: ",
        "Parser error: ",
    ];
    let mut rest = message.trim();
    while let Some(shorter) = PREFIXES.iter().find_map(|p| rest.strip_prefix(p)) {
        rest = shorter;
    }
    let rest = rest.trim_end_matches(['.', ' ', '\n']);
    let mut letters = rest.chars();
    match letters.next() {
        // An acronym or a name in capitals stays as it is.
        Some(first) if first.is_uppercase() && letters.clone().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => rest.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_error_comes_out_of_any_wrapping() {
        let cause = Error::damaged("data file \"x\" is damaged");
        let parquet = ParquetError::External(Box::new(cause.clone()));
        let wrapped = [
            to_datafusion(cause.clone()),
            DataFusionError::ParquetError(Box::new(parquet)),
            DataFusionError::ArrowError(
                Box::new(ArrowError::ExternalError(Box::new(to_datafusion(cause.clone())))),
                None,
            ),
            DataFusionError::Shared(to_datafusion(cause.clone()).into()),
        ];
        for error in wrapped {
            assert_eq!(from_datafusion(error), cause);
        }
    }

    #[test]
    fn library_sentences_become_ours() {
        let plan = DataFusionError::Plan("table 'tandem.public.x' not found".to_owned());
        assert_eq!(from_datafusion(plan).kind(), ErrorKind::NotFound);
        let cast = ArrowError::CastError("Can't cast value 300 to type Int8".to_owned());
        let error = from_datafusion(DataFusionError::ArrowError(Box::new(cast), None));
        assert_eq!(error, Error::invalid("can't cast value 300 to type Int8"));
        assert_eq!(sentence("SQL is hard."), "SQL is hard");
    }
}
