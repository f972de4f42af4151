//! A request's body, piece by piece, unpacked.

use std::io::Write;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::StreamExt;
use tandem_env::{Clock, within};
use tandem_types::{Error, ErrorKind, Result};

use crate::guard::hear_out;

/// A body, unpacked, at most: lines beyond are for another request.
pub(crate) const BODY_BYTES: u64 = 1 << 30;

/// How long a client may send nothing before its body is over.
const SILENCE: Duration = Duration::from_secs(30);

/// How long a client may be waited for in all, while it sends fewer bytes in a second than it has to.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 1 << 10;

/// Packed bytes that are unpacked at a time: a thousand times as many may come out.
const PACKED_PIECE: usize = 4 << 10;

/// What is read of the body of a write that is refused before its end: more than clients send at a time.
const HEARD_OUT: usize = 64 << 20;

/// The pieces of a body.
pub(crate) struct Pieces {
    stream: BodyDataStream,
    /// As its head says.
    pub length: Option<u64>,
    /// Whether any of it was asked for.
    begun: bool,
    gzip: Option<MultiGzDecoder<Vec<u8>>>,
    /// Of a packed body, what is not unpacked yet.
    packed: Bytes,
    /// Unpacked so far.
    pub bytes: u64,
    /// As they came.
    received: u64,
    /// How long they were waited for.
    waited: Duration,
}

impl Pieces {
    pub fn new(body: Body) -> Self {
        Self {
            length: body.size_hint().exact(),
            stream: body.into_data_stream(),
            begun: false,
            gzip: None,
            packed: Bytes::new(),
            bytes: 0,
            received: 0,
            waited: Duration::ZERO,
        }
    }

    /// It is packed.
    pub fn unpack(&mut self) {
        self.gzip = Some(MultiGzDecoder::new(Vec::new()));
    }

    /// Reads on a while for nothing, so that who is still sending sees an answer. `waits`: it sends once it is asked to, and
    /// need not be.
    pub async fn hear_out(&mut self, waits: bool, clock: &dyn Clock) {
        if self.begun || !waits {
            hear_out(&mut self.stream, HEARD_OUT, clock).await;
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if it cannot be unpacked; `Cancelled` or `Unavailable` if it does not come to its end.
    pub async fn next(&mut self, clock: &dyn Clock) -> Result<Option<Bytes>> {
        let piece = match self.packed.is_empty() {
            true => self.receive(clock).await?,
            false => Some(self.packed.clone()),
        };
        let Some(piece) = piece else { return self.end() };
        let piece = match &mut self.gzip {
            None => piece,
            Some(gzip) => {
                let mut piece = piece;
                self.packed = piece.split_off(piece.len().min(PACKED_PIECE));
                gzip.write_all(&piece).map_err(|e| broken(&e))?;
                gzip.flush().map_err(|e| broken(&e))?;
                Bytes::from(std::mem::take(gzip.get_mut()))
            }
        };
        self.bytes += piece.len() as u64;
        Ok(Some(piece))
    }

    async fn receive(&mut self, clock: &dyn Clock) -> Result<Option<Bytes>> {
        let late = || Error::unavailable(format!("nothing of the body came within {SILENCE:?}"));
        let began = clock.monotonic();
        self.begun = true;
        let piece = within(clock, SILENCE, self.stream.next()).await.ok_or_else(late)?;
        self.waited += clock.monotonic().saturating_sub(began);
        match piece {
            None => Ok(None),
            Some(Ok(piece)) => {
                self.received += piece.len() as u64;
                if self.waited > PATIENCE && self.received / SLOWEST < self.waited.as_secs() {
                    let (bytes, waited) = (self.received, self.waited.as_secs());
                    return Err(Error::unavailable(format!(
                        "{bytes} bytes of the body came within {waited} s"
                    )));
                }
                Ok(Some(piece))
            }
            Some(Err(e)) => Err(Error::new(ErrorKind::Cancelled, format!("the body broke off: {e}"))),
        }
    }

    fn end(&mut self) -> Result<Option<Bytes>> {
        let Some(mut gzip) = self.gzip.take() else { return Ok(None) };
        gzip.try_finish().map_err(|e| broken(&e))?;
        let rest = std::mem::take(gzip.get_mut());
        self.bytes += rest.len() as u64;
        Ok(Some(Bytes::from(rest)).filter(|rest| !rest.is_empty()))
    }
}

fn broken(e: &std::io::Error) -> Error {
    Error::invalid(format!("the body is no gzip: {e}"))
}
