//! How the program is linked.

use std::env;

/// The program is loaded where it was linked for, not anywhere: a MiB of tables that point into it (those of
/// OpenSSL and of the object stores, for the most part) need not be adapted at each start, page by page. PostgreSQL's
/// `archive_command` and `restore_command` start it once for each segment, and this was 1.4 ms of 3.4.
///
/// Libraries, stack and heap are where chance puts them all the same. With feature `pie` so is the program.
fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let is_known = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    // The code that starts a static program is another one then, and rustc has chosen it already.
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|features| features.split(',').any(|feature| feature == "crt-static"));
    if is_known && !is_static && env::var_os("CARGO_FEATURE_PIE").is_none() {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
