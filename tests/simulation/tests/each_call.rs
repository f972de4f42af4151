//! Every store call of three scenarios goes wrong in turn, in each of seven ways: every write is answered, and every promise
//! holds.

use tandem_simulation::{Plan, Script, Way, play_plan};

fn each_call(script: Script) {
    let usual = play_plan(Plan::of_script(script, None), None);
    assert_eq!(usual.violation, None);
    assert!(usual.calls > 60 && usual.commits > 10, "{usual:?}");
    for call in 1..=usual.calls {
        for way in Way::ALL {
            let played = play_plan(Plan::of_script(script, Some((call, way))), None);
            assert_eq!(played.violation, None, "{script:?}: call {call} of {} meets {way:?}", usual.calls);
        }
    }
    println!("{script:?}: {} calls in {} ways", usual.calls, Way::ALL.len());
}

#[test]
fn ingest_with_compaction() {
    each_call(Script::Ingest);
}

#[test]
fn fail_over() {
    each_call(Script::FailOver);
}

#[test]
fn catch_up_from_a_checkpoint() {
    each_call(Script::CatchUp);
}
