//! The built-in receiver: what is particular about it.

use nix::sys::signal::Signal;

use super::support::{assert_received, home_with_slot, shared, streaming, wait_for_segments};

const BUILTIN: &str = "[walarch]\nreceiver = \"builtin\"\narchive_while_receiving = false\n";

#[test]
fn wal_arrives_byte_for_byte() {
    let postgres = shared();
    let home = home_with_slot(&postgres, "builtin_arrives", &[]).walarch_toml(BUILTIN);
    let receiving = streaming(&home);
    let segments = [postgres.fill_segment(), postgres.fill_segment()];
    wait_for_segments(&home, &segments);
    for segment in &segments {
        assert_received(&postgres, &home.streaming(), segment);
    }
    receiving.end_by(Signal::SIGINT).exits(0);
}
