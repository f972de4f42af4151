//! One write request, from its first byte to its answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::EXPECT;
use axum::response::Response;
use tandem_lines::{LineError, Parser, Settings};
use tandem_types::{Error, Result};

use super::answer::{done, failed};
use super::body::{BODY_BYTES, Pieces};
use super::request::{Asked, Family};
use super::{LineReceipt, LineTransaction, Service};

/// Bytes that lines are read of at a time.
const FED: usize = 256 << 10;

/// Why a request is not answered with plain success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing is written.
    Error(Error),
    TooLarge,
    Encoding(Error),
    /// Lines were refused.
    Lines {
        /// The first of them; there is one at least.
        errors: Vec<LineError>,
        count: u64,
        /// Whether the others are written, and where; `None`: nothing is.
        written: Option<Option<LineReceipt>>,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// `family` is `None` where the request itself has to say.
pub(crate) async fn write(
    State(service): State<Arc<Service>>,
    family: Option<Family>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let family = family.unwrap_or_else(|| Family::of_write(&head.uri));
    let mut pieces = Pieces::new(body);
    let written = match Asked::parse(family, &head) {
        Ok(asked) => service.run(&asked, &mut pieces).await,
        Err(error) if error.kind() == tandem_types::ErrorKind::Unsupported => Err(Failure::Encoding(error)),
        Err(error) => Err(error.into()),
    };
    match written {
        Ok(receipt) => done(receipt.as_ref()),
        Err(failure) => {
            pieces.hear_out(head.headers.contains_key(EXPECT), &*service.clock).await;
            failed(family, &failure)
        }
    }
}

impl Service {
    /// The commit; `None` if there was nothing to write.
    async fn run(&self, asked: &Asked, pieces: &mut Pieces) -> Result<Option<LineReceipt>, Failure> {
        let mut transaction = self.store.begin(asked.options.clone())?;
        let settings = Settings {
            precision: asked.precision,
            now: self.clock.now_micros().saturating_mul(1000),
            body_bytes: pieces.length.filter(|_| !asked.gzip),
            ..Settings::default()
        };
        let mut parser = Parser::new(settings, transaction.catalog());
        if asked.gzip {
            pieces.unpack();
        }
        let mut digest = transaction.wants_digest().then(|| asked.digest());
        let mut place = self.room.place();
        // Tables that lines did not fit.
        let mut doubtful = BTreeSet::new();
        while let Some(piece) = pieces.next(&*self.clock).await? {
            if pieces.bytes > BODY_BYTES {
                return Err(Failure::TooLarge);
            }
            place.grow(pieces.bytes, &*self.clock).await?;
            if let Some(digest) = &mut digest {
                digest.update(&piece);
            }
            // Lines that are kept aside take many times their bytes, and a packed body comes in pieces of megabytes.
            for part in piece.chunks(FED) {
                parser.feed(part)?;
                stage(&mut *transaction, &mut parser, asked.partial, &mut doubtful).await?;
            }
            place.grow(parser.held(), &*self.clock).await?;
        }
        parser.finish()?;
        stage(&mut *transaction, &mut parser, asked.partial, &mut doubtful).await?;

        let count = parser.failed();
        metrics::counter!("tandem_lines_refused_total").increment(count);
        let errors = parser.errors().to_vec();
        let diverted = !doubtful.is_empty();
        doubtful.extend(parser.conflicts().iter().cloned());
        if !doubtful.is_empty() {
            // A table that somebody else has changed by now may take them: who is told no throws them away.
            transaction.confirm(&doubtful).await?;
        }
        if let Some(digest) = &mut digest {
            // With other lines refused it is another write, though of the same bytes: what was acknowledged must be there.
            for error in &errors {
                digest.update(&error.line.to_be_bytes());
            }
            digest.update(&count.to_be_bytes());
        }
        if count > 0 && !asked.partial {
            return Err(Failure::Lines { errors, count, written: None });
        }
        // Two events without a time of their own are two, however alike: only a token makes them one.
        let telling = asked.options.token.is_some() || parser.all_stamped();
        let digest = digest.filter(|_| telling).map(|digest| digest.finalize().as_bytes().to_vec());
        let written = match parser.rows() {
            0 if !diverted => None,
            rows => {
                let receipt = transaction.commit(digest).await?;
                if !receipt.duplicate {
                    metrics::counter!("tandem_ingest_rows_total", "via" => "lines").increment(rows);
                }
                Some(receipt)
            }
        };
        match count {
            0 => Ok(written),
            _ => Err(Failure::Lines { errors, count, written: Some(written) }),
        }
    }
}

/// Hands on what is complete, and notes the tables of lines that are kept aside. Once a line was refused and that spoils
/// the rest, the rest is read for its errors only.
async fn stage(
    transaction: &mut dyn LineTransaction,
    parser: &mut Parser,
    partial: bool,
    aside_of: &mut BTreeSet<String>,
) -> Result<()> {
    let (ready, aside) = (parser.take(), parser.take_diverted());
    if parser.failed() > 0 && !partial {
        return Ok(());
    }
    for rows in ready {
        transaction.stage(rows).await?;
    }
    if !aside.is_empty() {
        metrics::counter!("tandem_lines_diverted_total").increment(aside.len() as u64);
        aside_of.extend(aside.iter().map(|line| line.table.clone()));
        transaction.divert(aside).await?;
    }
    Ok(())
}
