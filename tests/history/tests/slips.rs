//! Deliberate mistakes in how tables are read: each is noticed, or histories of its kind are missing.

use tandem_history::{Plan, Slip, play_with};

/// More than any mistake needs to be noticed.
const HISTORIES: u64 = 400;

#[test]
fn every_mistake_is_noticed() {
    for slip in Slip::ALL {
        let noticed =
            (1..=HISTORIES).find(|seed| play_with(&Plan::of(*seed), Some(slip)).violation.is_some());
        println!("{slip:?}: noticed after {noticed:?} histories");
        assert!(noticed.is_some(), "{slip:?} is noticed by none of {HISTORIES} histories");
    }
}
