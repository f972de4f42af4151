//! The service on a real port in front of a real node, driven by arrow-flight's clients.

mod kit;
mod limits;
mod put;
mod sql;
