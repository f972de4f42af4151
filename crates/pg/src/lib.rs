//! PostgreSQL's wire protocol: translation only.
//!
//! What this crate promises:
//!
//! - a statement means what it means over Flight SQL: it goes to the same engine, in the same dialect. One connection is one
//!   session, with PostgreSQL's manners: a transaction that failed takes nothing but its end, and what is sent between two
//!   `Sync`s is one transaction;
//! - questions about the schema, in `pg_catalog` and `information_schema`, are answered as PostgreSQL answers them, from the
//!   state that the session reads;
//! - what is not supported is refused by name, with an SQLSTATE; nothing is accepted and then not done;
//! - whatever a client sends, it harms nobody but its own connection: messages, rows held and connections are bounded, and
//!   lengths are not believed.
//!
//! Words: a *statement* is prepared, a *portal* is a statement bound to parameters and perhaps half read; *simple* and
//! *extended* are the protocol's two ways of running one; *implicit* is a transaction that the protocol opens, not the client.
//!
//! What it refuses to know: what statements mean, and how anything is stored.
//!
//! The protocol is spoken by this crate itself. Libraries for it take the parser and the session into their own hands, where
//! our statements would never arrive, or trust lengths that clients send; and the usual catalog library turns features of
//! DataFusion on that nothing else here needs.

mod cancel;
mod catalog;
mod connection;
mod copy;
mod decode;
mod encode;
mod errors;
mod extended;
mod lists;
mod local;
mod message;
mod server;
mod settings;
mod simple;
mod startup;
mod statement;
mod suit;
mod types;

pub use server::{PgConfig, serve};
