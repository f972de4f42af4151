//! The running engine as SQL sees it.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use tandem_datafile::FooterCache;
use tandem_format::CommitHeader;
use tandem_manifest::{Manifest, Step, TailSection};
use tandem_sql::{AppendRequest, Database, NodeSetting, Receipt, RowStream, SectionRows};
use tandem_types::{Result, Seq, TableId, TableName};
use tandem_writer::{Append, Committed, CreateTable};

use crate::Shared;

/// Commits of `system.log` that are read at once.
const LOG_READS: usize = 16;

#[async_trait]
impl Database for Shared {
    fn snapshot(&self) -> Arc<Manifest> {
        self.writer.state()
    }

    async fn submit(&self, base: Seq, steps: Vec<Step>) -> Result<Receipt> {
        self.writer.submit(base, steps).await.map(receipt)
    }

    async fn append(&self, request: AppendRequest, rows: RowStream) -> Result<Receipt> {
        let append = Append {
            table: request.table,
            schema: request.schema,
            policy: request.policy,
            create: request.create.map(|create| CreateTable {
                spec: create.spec,
                if_not_exists: create.if_not_exists,
                replace: create.replace,
            }),
            queued: request.queued,
        };
        self.writer.append(append, rows).await.map(receipt)
    }

    async fn tail_rows(&self, table: TableId, section: &TailSection) -> Result<Arc<SectionRows>> {
        self.tail.load(table, section).await
    }

    async fn read_log(&self, from: Seq, to: Seq, limit: usize) -> Result<Vec<(CommitHeader, u64)>> {
        let seqs = (from.0..=to.0).map(Seq).take(limit);
        let commits = stream::iter(seqs).map(|seq| self.log.read(seq)).buffered(LOG_READS);
        let found: Vec<_> = commits.try_filter_map(|c| async move { Ok(c) }).try_collect().await?;
        let sized = |commit: tandem_log::Commit| {
            let bytes = inline_bytes(&commit.header);
            (commit.header, bytes)
        };
        Ok(found.into_iter().map(sized).collect())
    }

    async fn optimize(&self, table: &TableName) -> Result<Receipt> {
        self.compact_all(table).await
    }

    async fn checkpoint(&self) -> Result<Seq> {
        self.write_checkpoint().await
    }

    fn objects(&self) -> Arc<dyn ObjectStore> {
        self.env.store.objects()
    }

    fn footers(&self) -> Arc<FooterCache> {
        self.footers.clone()
    }

    fn node_settings(&self) -> Vec<NodeSetting> {
        let (writer, engine) = (&self.config.writer, &self.config.engine);
        let defaults = crate::NodeConfig::default();
        let row = |name, value: String, default: String, description| NodeSetting {
            name,
            value,
            default,
            description,
        };
        vec![
            row(
                "commit.window",
                format!("{}ms", writer.window.as_millis()),
                format!("{}ms", defaults.writer.window.as_millis()),
                "how long a group of writes waits for company before it is committed",
            ),
            row(
                "commit.inline_bytes",
                writer.inline_bytes.to_string(),
                defaults.writer.inline_bytes.to_string(),
                "rows that ride in one commit object, in bytes; larger ones go to segments",
            ),
            row(
                "commit.queue_bytes",
                writer.queue_bytes.to_string(),
                defaults.writer.queue_bytes.to_string(),
                "bytes that may wait for their commit before senders are slowed down",
            ),
            row(
                "tail_cache_bytes",
                writer.tail_cache_bytes.to_string(),
                defaults.writer.tail_cache_bytes.to_string(),
                "rows that are not compacted yet kept in memory, in bytes",
            ),
            row(
                "footer_cache_bytes",
                self.config.footer_cache_bytes.to_string(),
                defaults.footer_cache_bytes.to_string(),
                "footers of data files kept in memory, in bytes",
            ),
            row(
                "memory_limit",
                engine.memory_limit.to_string(),
                defaults.engine.memory_limit.to_string(),
                "memory of running queries, in bytes; beyond it sorts and aggregates spill",
            ),
        ]
    }
}

fn receipt(committed: Committed) -> Receipt {
    Receipt { seq: committed.seq, rows: committed.rows }
}

fn inline_bytes(header: &CommitHeader) -> u64 {
    header.sections().filter(|s| s.segment.is_none()).map(|s| s.len).sum()
}
