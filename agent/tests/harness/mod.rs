//! What the integration tests share: saying honestly that something could not be tested here.

/// Whether a test that needs `what` can run. If not, says so on standard output (`skipped: …`) and returns
/// false, unless `NODEPROF_REQUIRE_LIVE=1` says that this machine has everything: then a missing piece is a
/// failure.
pub(crate) fn require(what: &str, available: bool) -> bool {
    let demanded = std::env::var_os("NODEPROF_REQUIRE_LIVE").is_some_and(|value| value == "1");
    assert!(available || !demanded, "{what} is missing, and NODEPROF_REQUIRE_LIVE=1 demands it");
    if !available {
        println!("skipped: {what} is missing");
    }
    available
}
