//! The gRPC service: each call is guarded, counted, and handed to the part that translates it.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest,
    HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use tandem_types::{Error, Result};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::errors::{code_name, from_panic, to_status};
use crate::state::{Caller, Reply, State};

/// Requests by method and outcome. A stream counts once, when it ends.
const REQUESTS: &str = "tandem_flight_requests_total";

type Answer<T> = std::result::Result<Response<T>, Status>;
type Streamed<T> = BoxStream<'static, std::result::Result<T, Status>>;

/// The service behind the Flight port.
pub(crate) struct Service(pub Arc<State>);

impl Service {
    async fn unary<Q, T, F>(
        &self,
        method: &'static str,
        request: Request<Q>,
        run: impl FnOnce(Arc<State>, Caller, Q) -> F,
    ) -> Answer<T>
    where
        F: Future<Output = Result<Reply<T>>>,
    {
        let reply = self.guarded(method, request, run).await;
        count(method, reply.as_ref().map_or_else(Status::code, |_| Code::Ok));
        Ok(reply?.into_response(&self.0.node.node_id))
    }

    async fn streaming<Q, T, F>(
        &self,
        method: &'static str,
        request: Request<Q>,
        run: impl FnOnce(Arc<State>, Caller, Q) -> F,
    ) -> Answer<Streamed<T>>
    where
        F: Future<Output = Result<Reply<BoxStream<'static, Result<T>>>>>,
        T: 'static,
    {
        match self.guarded(method, request, run).await {
            Ok(reply) => {
                Ok(reply.map(|s| Watched::new(method, s).boxed()).into_response(&self.0.node.node_id))
            }
            Err(status) => {
                count(method, status.code());
                Err(status)
            }
        }
    }

    async fn guarded<Q, T, F>(
        &self,
        method: &'static str,
        request: Request<Q>,
        run: impl FnOnce(Arc<State>, Caller, Q) -> F,
    ) -> std::result::Result<T, Status>
    where
        F: Future<Output = Result<T>>,
    {
        let state = self.0.clone();
        let (metadata, extensions, body) = request.into_parts();
        let work = async move {
            let caller = state.caller(&metadata, &extensions)?;
            run(state, caller, body).await
        };
        let done = AssertUnwindSafe(work).catch_unwind().await;
        done.unwrap_or_else(|panic| Err(from_panic(method, panic.as_ref()))).map_err(|e| to_status(&e))
    }
}

fn count(method: &'static str, code: Code) {
    metrics::counter!(REQUESTS, "method" => method, "code" => code_name(code)).increment(1);
}

/// A response stream: it ends at its first error, a panic in it is an error, and how it ended is counted.
struct Watched<T> {
    method: &'static str,
    inner: Option<BoxStream<'static, Result<T>>>,
    counted: bool,
}

impl<T> Watched<T> {
    fn new(method: &'static str, inner: BoxStream<'static, Result<T>>) -> Self {
        Self { method, inner: Some(inner), counted: false }
    }

    fn end(&mut self, code: Code) {
        self.inner = None;
        self.counted = true;
        count(self.method, code);
    }
}

impl<T> Stream for Watched<T> {
    type Item = std::result::Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let method = self.method;
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| inner.poll_next_unpin(cx)))
            .unwrap_or_else(|panic| Poll::Ready(Some(Err(from_panic(method, panic.as_ref())))));
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(item))) => Poll::Ready(Some(Ok(item))),
            Poll::Ready(Some(Err(error))) => {
                let status = to_status(&error);
                self.end(status.code());
                Poll::Ready(Some(Err(status)))
            }
            Poll::Ready(None) => {
                self.end(Code::Ok);
                Poll::Ready(None)
            }
        }
    }
}

impl<T> Drop for Watched<T> {
    fn drop(&mut self) {
        if !self.counted {
            count(self.method, Code::Cancelled);
        }
    }
}

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Streamed<HandshakeResponse>;
    type ListFlightsStream = Streamed<FlightInfo>;
    type DoGetStream = Streamed<FlightData>;
    type DoPutStream = Streamed<PutResult>;
    type DoActionStream = Streamed<arrow_flight::Result>;
    type ListActionsStream = Streamed<ActionType>;
    type DoExchangeStream = Streamed<FlightData>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<Self::HandshakeStream> {
        // Whatever the client says is welcome, and some say nothing: its messages are not waited for.
        self.streaming("Handshake", request, |state, caller, _| async move {
            let bearer = state.sessions.mint_bearer(state.session_bearer(&caller.grant));
            let response = HandshakeResponse { protocol_version: 0, payload: bearer.clone().into() };
            let stream = futures::stream::iter([Ok(response)]).boxed();
            Ok(Reply::from(stream).with("authorization", format!("Bearer {bearer}")))
        })
        .await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        self.streaming("ListFlights", request, |state, caller, criteria| async move {
            if !criteria.expression.is_empty() {
                return Err(Error::unsupported("criteria of ListFlights are not supported"));
            }
            let infos = state.table_infos(&caller).await?;
            Ok(futures::stream::iter(infos.into_iter().map(Ok)).boxed().into())
        })
        .await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        self.unary("GetFlightInfo", request, |state, caller, descriptor| async move {
            state.flight_info(&caller, descriptor).await
        })
        .await
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answer<PollInfo> {
        self.unary("PollFlightInfo", request, |state, caller, descriptor| async move {
            // Planning is quick and rows stream, so there is never anything to poll for.
            let info = state.flight_info(&caller, descriptor).await?;
            Ok(info.map(|info| PollInfo { info: Some(info), progress: Some(1.0), ..PollInfo::default() }))
        })
        .await
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        self.unary("GetSchema", request, |state, caller, descriptor| async move {
            Ok(state.schema_of(&caller, &descriptor).await?.into())
        })
        .await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answer<Self::DoGetStream> {
        self.streaming("DoGet", request, |state, caller, ticket| async move {
            state.read_ticket(&caller, &ticket).await
        })
        .await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        self.streaming("DoPut", request, |state, caller, input| async move {
            crate::put::put(state, caller, input.boxed()).await
        })
        .await
    }

    async fn do_exchange(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoExchangeStream> {
        self.streaming("DoExchange", request, |state, caller, input| async move {
            crate::exchange::exchange(state, caller, input.boxed()).await
        })
        .await
    }

    async fn do_action(&self, request: Request<Action>) -> Answer<Self::DoActionStream> {
        self.streaming("DoAction", request, |state, caller, action| async move {
            let reply = state.act(caller, action).await?;
            Ok(reply.map(|bodies| {
                let results = bodies.into_iter().map(|body| Ok(arrow_flight::Result { body }));
                futures::stream::iter(results).boxed()
            }))
        })
        .await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answer<Self::ListActionsStream> {
        self.streaming("ListActions", request, |_, _, _| async move {
            Ok(futures::stream::iter(crate::actions::list().into_iter().map(Ok)).boxed().into())
        })
        .await
    }
}
