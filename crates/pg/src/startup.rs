//! How a connection begins: TLS, who asks, and to cancel what.

use std::io;

use bytes::{Buf, BytesMut};
use tandem_access::{Grant, Wire};
use tandem_types::{Error, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::errors::{Failure, write_error};
use crate::message::{self, Message, Output};
use crate::server::Server;

/// Bytes of what is sent before anybody is let in.
const STARTUP_BYTES: usize = 10_000;
/// Requests for one encryption or another.
const REQUESTS: usize = 4;

const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A client that was let in.
pub(crate) struct Client {
    pub wire: Wire,
    pub grant: Grant,
    pub parameters: Vec<(String, String)>,
    /// What it has sent already of what comes next.
    pub ahead: BytesMut,
}

/// Why a connection is not to go on.
pub(crate) enum Refused {
    /// The client was told.
    Told,
    /// It went, or asked for nothing more.
    Gone,
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Brings a connection to where statements can be sent. The caller limits the time.
pub(crate) async fn begin(server: &Server, stream: TcpStream) -> Result<Client, Refused> {
    let mut first = [0];
    let direct = stream.peek(&mut first).await? > 0 && first == [TLS_HANDSHAKE];
    let mut wire = match (&server.tls, direct) {
        (Some(tls), true) => tls.accept(stream).await?,
        (None, true) => return Err(Refused::Gone),
        (_, false) => Wire::Plain(stream),
    };
    for _ in 0..REQUESTS {
        let (code, mut body) = startup_packet(&mut wire).await?;
        match code {
            TLS => {
                wire = match (wire, &server.tls) {
                    (Wire::Plain(mut stream), Some(tls)) => {
                        stream.write_all(b"S").await?;
                        tls.accept(stream).await?
                    }
                    (mut wire, _) => {
                        wire.write_all(b"N").await?;
                        wire
                    }
                };
            }
            GSS => wire.write_all(b"N").await?,
            // Older clients cancel in the clear whatever the connection speaks. The key is all that counts.
            CANCEL if body.len() >= 8 => {
                let (process, secret) = (body.get_u32(), body.get_u32());
                server.cancels.cancel(process, secret);
                return Err(Refused::Gone);
            }
            code if code >> 16 == 3 => return admit(server, wire, code, &body).await,
            code => {
                let message =
                    format!("protocol {}.{} is not understood here, only 3.0 is", code >> 16, code & 0xffff);
                return Err(refuse(&mut wire, Error::unsupported(message).into()).await);
            }
        }
    }
    Err(Refused::Gone)
}

/// A message without a type: its code, and the rest. Read exactly, so that nothing that follows in the clear is taken
/// for encrypted.
async fn startup_packet(wire: &mut Wire) -> Result<(u32, BytesMut), Refused> {
    let length = usize::try_from(wire.read_u32().await?).unwrap_or(usize::MAX);
    if !(8..=STARTUP_BYTES).contains(&length) {
        // No client of ours: perhaps HTTP.
        return Err(Refused::Gone);
    }
    let code = wire.read_u32().await?;
    let mut body = BytesMut::zeroed(length - 8);
    wire.read_exact(&mut body).await?;
    Ok((code, body))
}

async fn admit(server: &Server, mut wire: Wire, code: u32, body: &[u8]) -> Result<Client, Refused> {
    if server.tls.is_some() && !matches!(wire, Wire::Tls(_)) {
        let error =
            Error::unauthenticated("this node speaks TLS only: connect with sslmode=require or stricter");
        return Err(refuse(&mut wire, Failure::new("28000", error)).await);
    }
    let (parameters, unknown) = match parameters(body) {
        Ok(parameters) => parameters,
        Err(error) => return Err(refuse(&mut wire, Failure::new("08P01", error)).await),
    };
    let mut output = Output::default();
    if code & 0xffff != 0 || !unknown.is_empty() {
        output.protocol(0, &unknown);
    }
    let asked =
        |name: &str| parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if asked("replication").is_some_and(|value| !matches!(value, "false" | "off" | "no" | "0")) {
        let error = Error::unsupported("there is no replication by this protocol");
        return Err(refuse(&mut wire, error.into()).await);
    }
    let mut ahead = BytesMut::new();
    let grant = match &server.access.tokens {
        None => Ok(Grant::everything()),
        Some(_) => {
            output.authentication_password();
            send(&mut wire, &mut output).await?;
            let header = format!("Bearer {}", password(&mut wire, &mut ahead).await?);
            server.access.admit(std::iter::once(header.as_str()), server.clock.now_micros())
        }
    };
    let grant = match grant {
        Ok(grant) => grant,
        Err(error) => return Err(refuse(&mut wire, error.into()).await),
    };
    let user = asked("user").unwrap_or_default();
    if let Some(database) = asked("database").filter(|name| !is_ours(name, user)) {
        let error =
            Error::not_found(format!("database {database:?} does not exist; the only one is \"tandem\""));
        return Err(refuse(&mut wire, Failure::new("3D000", error)).await);
    }
    send(&mut wire, &mut output).await?;
    Ok(Client { wire, grant, parameters, ahead })
}

/// There is one database. Clients that were told none ask for one of their user's name, or of PostgreSQL's own.
fn is_ours(database: &str, user: &str) -> bool {
    database.is_empty() || database == user || matches!(database, "tandem" | "postgres")
}

/// Names and values, and the names of what belongs to the protocol and is not known here.
type Parameters = (Vec<(String, String)>, Vec<String>);

fn parameters(body: &[u8]) -> Result<Parameters> {
    let wrong = || Error::invalid("the startup message is no list of names and values");
    let body = body.strip_suffix(b"\0").ok_or_else(wrong)?;
    let mut texts = body.split(|byte| *byte == 0).map(|text| String::from_utf8(text.to_vec()));
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    while let Some(name) = texts.next() {
        let name = name.map_err(|_| wrong())?;
        if name.is_empty() {
            break;
        }
        let value = texts.next().and_then(|value| value.ok()).ok_or_else(wrong)?;
        if name.starts_with("_pq_.") { unknown.push(name) } else { known.push((name, value)) }
    }
    Ok((known, unknown))
}

/// The password; what was read behind it stays in `input`.
async fn password(wire: &mut Wire, input: &mut BytesMut) -> Result<String, Refused> {
    loop {
        match message::take(input, STARTUP_BYTES) {
            Ok(Some(Message::Password(password))) => return Ok(password),
            Ok(None) => {}
            Ok(Some(_)) => {
                let error = Error::unauthenticated("a password is wanted here: the token");
                return Err(refuse(wire, error.into()).await);
            }
            Err(error) => return Err(refuse(wire, Failure::new("08P01", error)).await),
        }
        if wire.read_buf(input).await? == 0 {
            return Err(Refused::Gone);
        }
    }
}

async fn send(wire: &mut Wire, output: &mut Output) -> io::Result<()> {
    wire.write_all(&output.take()).await?;
    wire.flush().await
}

/// Tells the client why it is not let in.
pub(crate) async fn refuse(wire: &mut Wire, failure: Failure) -> Refused {
    let mut output = Output::default();
    write_error(&mut output, &failure, true);
    match send(wire, &mut output).await {
        Ok(()) => {
            let _ = wire.shutdown().await;
            Refused::Told
        }
        Err(_) => Refused::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_pairs() {
        let (known, unknown) = parameters(b"user\0me\0database\0\0_pq_.x\x001\0\0").unwrap();
        assert_eq!(known, [("user".into(), "me".into()), ("database".into(), String::new())]);
        assert_eq!(unknown, ["_pq_.x"]);
        for wrong in [&b""[..], b"user\0me", b"user\0\xff\0\0", b"user\0"] {
            assert!(parameters(wrong).is_err(), "{wrong:?}");
        }
        assert!(is_ours("me", "me") && is_ours("tandem", "me") && !is_ours("sales", "me"));
    }
}
