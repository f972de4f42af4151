//! The service on a real port in front of a real node, driven by arrow-flight's clients.

#![allow(clippy::disallowed_methods, reason = "tests meet the real clock")]

mod kit;
mod limits;
mod put;
mod security;
mod sql;
mod submit;
mod tail;
mod transactions;
mod writes;
