//! The simple protocol: a text with statements, answered with rows in text.

use tandem_sql::text::statements;

use crate::connection::{Connection, Stop};
use crate::encode::Rows;
use crate::statement::{Outcome, Running, columns_of, counted_tag};

impl Connection {
    /// Runs the statements of a text. Those that change something are one transaction, unless the text says otherwise.
    pub async fn simple(&mut self, text: &str) -> Result<(), Stop> {
        if self.skipping {
            return Ok(());
        }
        // As PostgreSQL has it, what has no name is gone.
        self.statements.remove("");
        self.portals.remove("");
        let done = match self.simple_all(text).await {
            Ok(()) => self.commit_implicit().await,
            failed => failed,
        };
        match done {
            Ok(()) => {}
            Err(Stop::Failed(failure)) => self.fail(&failure),
            Err(Stop::Gone) => return Err(Stop::Gone),
        }
        if !self.session.is_in_transaction() {
            self.portals.clear();
        }
        self.ready().await
    }

    async fn simple_all(&mut self, text: &str) -> Result<(), Stop> {
        let all = statements(text);
        if all.is_empty() {
            self.output.empty_query();
        }
        let last = all.len().saturating_sub(1);
        for (at, sql) in all.into_iter().enumerate() {
            let statement = self.understand(sql, &[]).await?;
            // What comes after it may fail, and takes it along then.
            let joins = at < last;
            match self.start(&statement, None, joins).await? {
                Outcome::Done(tag) => self.output.complete(&tag),
                Outcome::Rows(mut running) => {
                    // Of the rows as they are: the table may have changed since the statement was understood.
                    self.output.row_description(&columns_of(&running.schema), &[]);
                    self.send_all(&mut running).await?;
                    self.output.complete(&counted_tag(&statement.tag, Some(running.sent)));
                }
            }
            self.send_much().await?;
        }
        Ok(())
    }

    async fn send_all(&mut self, running: &mut Running) -> Result<(), Stop> {
        while let Some(batch) = self.next_batch(running).await? {
            let rows = Rows::new(&batch, &[])?;
            for row in 0..batch.num_rows() {
                rows.write(row, &mut self.output)?;
                self.send_much().await?;
            }
            running.sent += batch.num_rows() as u64;
        }
        Ok(())
    }
}
