//! Where queries compute: threads of their own, so that no query can starve the network.

use std::any::Any;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use tandem_env::{SystemClock, within};
use tandem_types::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

/// Planning recurses over expressions; what the statement limits let through must fit.
const STACK_BYTES: usize = 16 << 20;

/// Threads that one processor is shared among.
const THREADS_PER_PROCESSOR: usize = 8;

/// Threads for planning and execution.
#[derive(Debug)]
pub(crate) struct QueryRuntime {
    /// Taken only when dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl QueryRuntime {
    /// Workers named `tandem-query`, several for each of `threads` processors.
    ///
    /// Some operators compute for long without giving way (a join whose filter drops everything, DataFusion #19358): the
    /// spare threads let the system's scheduler share the processors, so that such a query slows others and stops none.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1) * THREADS_PER_PROCESSOR)
            .thread_name("tandem-query")
            .thread_stack_size(STACK_BYTES)
            .enable_time()
            .build()
            .map_err(|e| Error::internal(format!("the threads for queries cannot be started: {e}")))?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Computes `work` on the query threads. It is aborted when the caller goes away; if it panics,
    /// only the caller sees it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        on(&self.handle, work).await?
    }

    /// As [`run`](Self::run), but gives up after `limit`.
    pub(crate) async fn run_within<T: Send + 'static>(
        &self,
        limit: Duration,
        what: &str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match within(&SystemClock, limit, self.run(work)).await {
            Some(result) => result,
            None => Err(Error::new(
                ErrorKind::DeadlineExceeded,
                format!("{what} took longer than {} s", limit.as_secs()),
            )),
        }
    }
}

impl Drop for QueryRuntime {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which is not allowed within another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs `work` on the threads of `handle` and waits for it; it is aborted if the waiting one goes away.
pub(crate) async fn on<T: Send + 'static>(
    handle: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let mut tasks = JoinSet::new();
    tasks.spawn_on(guarded(work), handle);
    match tasks.join_next().await {
        Some(Ok(result)) => result,
        _ => Err(Error::new(ErrorKind::Cancelled, "the query was cancelled")),
    }
}

/// Turns a panic of `work` into an error.
pub(crate) async fn guarded<T>(work: impl Future<Output = T>) -> Result<T> {
    std::panic::AssertUnwindSafe(work).catch_unwind().await.map_err(|payload| panicked(payload.as_ref()))
}

fn panicked(payload: &(dyn Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    Error::internal(format!("the query panicked, which is a bug: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_the_callers_error_and_the_threads_go_on() {
        let runtime = QueryRuntime::new(1).unwrap();
        let error = runtime.run(async { panic!("on purpose") as Result<()> }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains("on purpose"), "{error}");
        assert_eq!(runtime.run(async { Ok(7) }).await, Ok(7));
    }

    #[tokio::test]
    async fn work_that_takes_too_long_is_given_up() {
        let runtime = QueryRuntime::new(1).unwrap();
        let never = std::future::pending::<Result<()>>();
        let error = runtime.run_within(Duration::from_millis(10), "planning", never).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    }
}
