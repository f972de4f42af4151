//! Whether a node takes writes.

use tandem_types::{Error, Result};

/// What a node is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    #[default]
    Writer,
    /// Follows the log and commits nothing.
    Replica {
        /// Nodes that take writes, as URLs joined by commas, where some are known.
        writer: Option<String>,
    },
}

impl Role {
    pub fn is_replica(&self) -> bool {
        matches!(self, Self::Replica { .. })
    }

    /// Refuses on a replica, naming who takes writes.
    pub fn check_writes(&self) -> Result<()> {
        let Self::Replica { writer } = self else { return Ok(()) };
        Err(match writer {
            Some(urls) => Error::not_writer(format!(
                "this node is a replica or a standby and takes no writes: send them to {urls}"
            ))
            .with_writer(urls),
            None => Error::not_writer(
                "this node is a replica or a standby and takes no writes; it knows of no writer now",
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use tandem_types::ErrorKind;

    use super::*;

    #[test]
    fn a_replica_says_who_writes() {
        assert!(Role::Writer.check_writes().is_ok());
        let error = Role::Replica { writer: Some("grpc://a:1".into()) }.check_writes().unwrap_err();
        assert_eq!((error.kind(), error.writer()), (ErrorKind::NotWriter, Some("grpc://a:1")));
        let error = Role::Replica { writer: None }.check_writes().unwrap_err();
        assert_eq!((error.kind(), error.writer()), (ErrorKind::NotWriter, None));
    }
}
