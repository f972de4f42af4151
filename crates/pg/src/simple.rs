//! The simple protocol: a text with statements, answered with rows in text.

use tandem_sql::text::statements;

use crate::connection::{Connection, Stop};
use crate::encode::Rows;
use crate::statement::{Outcome, Running, can_join, counted_tag};

impl Connection {
    /// Runs the statements of a text. Those that change something are one transaction, unless the text says otherwise.
    pub async fn simple(&mut self, text: &str) -> Result<(), Stop> {
        // What was left of the extended protocol is over.
        self.skipping = false;
        let done = match self.simple_all(text).await {
            Ok(()) => self.commit_implicit().await,
            failed => failed,
        };
        match done {
            Ok(()) => {}
            Err(Stop::Failed(failure)) => self.fail(&failure),
            Err(Stop::Gone) => return Err(Stop::Gone),
        }
        self.ready().await
    }

    async fn simple_all(&mut self, text: &str) -> Result<(), Stop> {
        let all = statements(text);
        if all.is_empty() {
            self.output.empty_query();
        }
        let joins = all.iter().filter(|statement| can_join(statement)).count() > 1;
        for sql in all {
            let statement = self.understand(sql, &[]).await?;
            match self.start(&statement, None, joins).await? {
                Outcome::Done(tag) => self.output.complete(&tag),
                Outcome::Rows(mut running) => {
                    if let Some(columns) = statement.columns() {
                        self.output.row_description(&columns, &[]);
                    }
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
