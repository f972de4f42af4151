//! The page of promises names tests that exist.

use std::path::Path;

#[test]
fn every_test_that_the_page_of_promises_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/promises.md")).unwrap();
    let named: Vec<(&str, &str)> =
        page.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once("::")).collect();
    let promises = page.lines().filter(|line| line.starts_with("**")).count();
    assert!(promises >= 9 && named.len() >= 2 * promises, "{promises} promises, {} tests", named.len());
    for (path, name) in named {
        let text = std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        let defined = text.lines().any(|line| {
            let line = line.trim_start();
            let after = ["fn ", "async fn ", "def "].into_iter().find_map(|word| line.strip_prefix(word));
            after.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
        });
        assert!(defined, "{path} has no test {name}");
    }
}
