//! DoExchange: what nodes say to each other. Translation only; the node decides.

use std::sync::Arc;

use arrow_flight::FlightData;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tandem_access::Right;
use tandem_client::handover::{Bundle, answer_message, asks_to_submit};
use tandem_client::tail::{Follow, Progress, asks_to_follow};
use tandem_types::{Error, Result};

use crate::errors::from_status;
use crate::put::Input;
use crate::state::{Caller, Reply, State};

/// Begins a DoExchange; what it answers.
pub(crate) async fn exchange(
    state: Arc<State>,
    caller: Caller,
    mut input: Input,
) -> Result<Reply<BoxStream<'static, Result<FlightData>>>> {
    let first = match input.next().await {
        Some(first) => first.map_err(|status| from_status(&status))?,
        None => return Err(Error::invalid("DoExchange without a message")),
    };
    // Whatever is not listed as reading is taken for writing.
    let right = if asks_to_follow(&first) { Right::Read } else { Right::Write };
    caller.grant.require(right, "DoExchange")?;
    if asks_to_submit(&first) {
        let submit = state.node.submit.as_ref();
        let submit = submit.ok_or_else(|| Error::unsupported("this node commits for no other"))?;
        let answers = submit(Bundle::from_message(first)?).await?;
        return Ok(stream::once(async move { Ok(answer_message(answers)) }).boxed().into());
    }
    if !asks_to_follow(&first) {
        return Err(Error::unsupported(
            "DoExchange is for nodes that follow each other and commit for each other, and nothing else",
        ));
    }
    let tail = state.node.tail.as_ref();
    let tail = tail.ok_or_else(|| Error::unsupported("this node cannot be followed"))?;
    let progress = input.map(|message| match message {
        Ok(message) => Progress::from_message(&message),
        Err(status) => Err(from_status(&status)),
    });
    let pushes = tail(Follow::from_message(&first)?, progress.boxed())?;
    Ok(pushes.map(|push| push.map(|push| push.to_message())).boxed().into())
}
