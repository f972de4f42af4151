//! What the shell needs of a database, and the one way it gets it: over Flight.

use std::future::Future;

use arrow::array::AsArray;
use tandem_client::{Client, QueryResult};
use tandem_types::Result;

/// Something that runs SQL.
pub trait SqlBackend: Send + Sync {
    /// Runs one statement. Dropping the future or the result cancels it.
    fn execute(&self, sql: &str) -> impl Future<Output = Result<QueryResult>> + Send;

    /// Where the database is reached now.
    fn describe(&self) -> String;

    /// Whether statements are part of an open transaction.
    fn is_in_transaction(&self) -> bool {
        false
    }

    /// Names to complete: schemas, tables and columns.
    fn names(&self) -> impl Future<Output = Result<Vec<String>>> + Send
    where
        Self: Sized,
    {
        async {
            let sql = "SELECT CAST(table_schema AS VARCHAR), CAST(table_name AS VARCHAR), CAST(column_name AS VARCHAR) \
                       FROM information_schema.columns";
            let mut names = std::collections::BTreeSet::new();
            for batch in self.execute(sql).await?.collect().await? {
                for column in batch.columns() {
                    let texts = column.as_string_opt::<i32>().into_iter().flat_map(|c| c.iter());
                    names.extend(texts.flatten().map(str::to_owned));
                }
            }
            Ok(names.into_iter().collect())
        }
    }
}

impl SqlBackend for Client {
    fn execute(&self, sql: &str) -> impl Future<Output = Result<QueryResult>> + Send {
        self.query(sql)
    }

    fn is_in_transaction(&self) -> bool {
        Client::is_in_transaction(self)
    }

    fn describe(&self) -> String {
        let url = self.url();
        if url.is_empty() { "no server".to_owned() } else { url }
    }
}
